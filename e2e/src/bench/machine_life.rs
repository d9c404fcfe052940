//! How often we write a VirtualMachine, and Events about it, in its whole life. It has no guest agent and a blank disk of a template.

use super::audit::{Mark, Write, explain};
use super::table::Row;
use crate::Result;
use crate::story::Story;
use crds::virtual_machine::VirtualMachine;
use serde_json::json;
use std::time::Duration;

const NAME: &str = "life";
/// What follows a state by itself follows within this.
const ECHO: Duration = Duration::from_secs(3);

/// Creates, stops, starts and deletes a machine.
///
/// # Errors
/// When the log cannot be read.
pub async fn measure(story: &Story) -> Result<Vec<Row>> {
    let begun = Mark::now(&story.run)?;
    let disk = json!({"spec": {"storagePool": story.namespace, "capacity": "1Mi"}});
    let disks = json!({"disks": [{"name": "d", "volumeTemplate": disk}]});
    story.apply(story.bare(NAME, disks)).await?;
    story.vm_is(NAME, "True", "Running").await;
    tokio::time::sleep(ECHO).await;
    let to_running = begun.writes()?;

    let power = |state: &str| json!({"spec": {"powerState": state}});
    story.patch::<VirtualMachine>(NAME, power("Stopped")).await;
    story.vm_is(NAME, "True", "Stopped").await;
    tokio::time::sleep(ECHO).await;
    story.patch::<VirtualMachine>(NAME, power("Running")).await;
    story.vm_is(NAME, "True", "Running").await;
    tokio::time::sleep(ECHO).await;
    story.delete::<VirtualMachine>(NAME).await;
    let whole = begun.writes()?;
    Ok(vec![
        writes(story, "writes to it until it runs", &to_running, 4),
        writes(story, "writes to it in its life", &whole, 11),
        events("Events about it until it runs", &to_running, 3),
        events("Events about it in its life", &whole, 10),
    ])
}

fn writes(story: &Story, what: &str, all: &[Write], limit: usize) -> Row {
    let of: Vec<_> = all.iter().filter(|write| write.is_to("virtualmachines", &story.namespace, NAME)).collect();
    explain(what, &of, limit);
    Row::count(what, of.len(), limit)
}

fn events(what: &str, all: &[Write], limit: usize) -> Row {
    let of: Vec<_> = all.iter().filter(|write| write.is_event_about("VirtualMachine", NAME)).collect();
    explain(what, &of, limit);
    Row::count(what, of.len(), limit)
}

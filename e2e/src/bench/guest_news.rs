//! How often a booting guest's own words (its agent is there, its name, its addresses) make us write its VirtualMachine.

use super::audit::{Mark, explain};
use super::table::Row;
use crate::Result;
use crate::story::{Story, until};
use serde_json::json;
use std::time::Duration;

/// The guest, which stays for the idle minute.
pub const NAME: &str = "guest";
/// After its last word the guest has nothing new to say; asking again comes at the latest 15 s later.
const QUIET: Duration = Duration::from_secs(20);

/// Boots a real guest with a guest agent from an imported disk.
///
/// # Errors
/// When the log cannot be read.
pub async fn measure(story: &Story) -> Result<Vec<Row>> {
    story.apply(story.guest(NAME, json!({}))).await?;
    story.vm_is(NAME, "True", "Running").await;
    let begun = Mark::now(&story.run)?;
    until("the guest's address", async || {
        let status = story.vm(NAME).await.and_then(|vm| vm.status).ok_or("no status")?;
        let told = status.interfaces.iter().any(|nic| !nic.addresses.is_empty());
        told.then_some(()).ok_or("no address")
    })
    .await;
    tokio::time::sleep(QUIET).await;
    let all = begun.writes()?;
    let of: Vec<_> = all.iter().filter(|write| write.is_to("virtualmachines", &story.namespace, NAME)).collect();
    explain("news of the guest", &of, 2);
    Ok(vec![Row::count("writes to another for news of its guest, a boot", of.len(), 2)])
}

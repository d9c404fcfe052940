//! What a machine costs in calls of libvirt and writes to the API server, and the same in a plain loop, with agent and controller away.

use super::audit::Write;
use super::table::Row;
use super::test_host::TestHost;
use crate::Result;
use crate::story::Story;
use crds::virtual_machine::VirtualMachine;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use libvirt_xml::{Domain, Mark, mark};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// Machines in the loop.
const MACHINES: usize = 200;

/// What one machine costs.
pub struct Cost {
    calls: BTreeMap<String, f64>,
    writes: Vec<Write>,
}

impl Cost {
    /// From the agent's counters before and after `machines` of them, and the writes to the one of that name.
    pub fn of(
        story: &Story,
        name: &str,
        writes: &[Write],
        before: &[(String, u64)],
        after: &[(String, u64)],
        machines: usize,
    ) -> Cost {
        let before: BTreeMap<_, _> = before.iter().cloned().collect();
        let grown = |(call, count): &(String, u64)| {
            (call.clone(), (count - before.get(call).copied().unwrap_or_default()) as f64 / machines as f64)
        };
        let concerns =
            |w: &&Write| w.is_to("virtualmachines", &story.namespace, name) || w.is_event_about("VirtualMachine", name);
        Cost {
            calls: after.iter().map(grown).filter(|(_, count)| *count >= 0.01).collect(),
            writes: writes.iter().filter(concerns).cloned().collect(),
        }
    }

    /// For the table.
    pub fn rows(&self) -> Vec<Row> {
        let calls =
            self.calls.iter().map(|(call, count)| Row::told(format!("{call}, a machine"), format!("{count:.2}")));
        calls.chain([Row::told("writes to it and Events", self.writes.len().to_string())]).collect()
    }

    fn times(&self, call: &str) -> usize {
        self.calls.get(call).map_or(0, |count| count.round() as usize)
    }
}

/// Makes more machines like `like` by a loop; gives how many a second.
///
/// # Errors
/// When libvirt or the API server refuses.
pub async fn measure(story: &Story, host: &mut TestHost, like: &str, cost: &Cost) -> Result<f64> {
    let model = story.vm(like).await.ok_or("the model machine is gone")?;
    let uid = model.uid().unwrap_or_default();
    let xml = host.libvirt.domain(&uid).await?.ok_or("the model's domain is gone")?.inactive_xml;
    host.stop_agent().await?;
    story.hold("controller");
    let begun = Instant::now();
    for index in 0..MACHINES {
        one(story, host, &format!("loop{index}"), (like, &uid, &xml), cost).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    story.release("controller");
    host.restart_agent().await?;
    Ok(MACHINES as f64 / seconds)
}

/// One machine, written and defined as the model was, with its own name and uid in place of the model's.
async fn one(
    story: &Story,
    host: &TestHost,
    name: &str,
    (like, like_uid, xml): (&str, &str, &str),
    cost: &Cost,
) -> Result<()> {
    let made = story.apply(host.machine(name)).await?;
    let uid = made.uid().unwrap_or_default();
    let own = |text: &str| text.replace(like_uid, &uid).replace(&format!("\"{like}\""), &format!("\"{name}\""));
    let mut domain = Domain::parse(xml)?;
    domain.uuid.clone_from(&uid);
    domain.name = story.domain_name(name);
    let mark = domain.mark.take().ok_or("the model's domain has no mark")?;
    let mark = Mark {
        owner: libvirt_xml::Owner { name: name.into(), uid: uid.clone(), ..mark.owner },
        domain: uid.clone(),
        ..mark
    };
    domain.mark = Some(mark.clone());
    called(host, &domain, &mark, cost).await?;
    for (index, write) in cost.writes.iter().enumerate() {
        written(story, name, index, write, &own).await?;
    }
    Ok(())
}

async fn called(host: &TestHost, domain: &Domain, mark: &Mark, cost: &Cost) -> Result<()> {
    let libvirt = &host.libvirt;
    let uuid = domain.uuid.as_str();
    for _ in 0..cost.times("virDomainLookupByName") {
        libvirt.domain_named(&domain.name).await?;
    }
    libvirt.define(domain.render()?).await?;
    libvirt.create(uuid).await?;
    for _ in 0..cost.times("virDomainSetMetadata") {
        libvirt.set_metadata(uuid, mark::NAMESPACE, mark::PREFIX, Some(mark.element()?)).await?;
    }
    for _ in 0..cost.times("virDomainSetAutostart") {
        libvirt.set_autostart(uuid, true).await?;
    }
    for _ in 0..cost.times("virDomainGetXMLDesc") {
        libvirt.domain(uuid).await?;
    }
    for _ in 0..cost.times("virDomainGetMetadata") {
        libvirt.glance(uuid, mark::NAMESPACE).await?;
    }
    Ok(())
}

async fn written(story: &Story, name: &str, index: usize, write: &Write, own: &impl Fn(&str) -> String) -> Result<()> {
    let mut body: Value = serde_json::from_str(&own(&write.body.to_string()))?;
    if write.resource == "events" {
        body["metadata"]["name"] = format!("{name}.{index}").into();
        let event: Event = serde_json::from_value(body)?;
        story.api::<Event>().create(&PostParams::default(), &event).await?;
        return Ok(());
    }
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    let api = story.api::<VirtualMachine>();
    if write.subresource == "status" {
        let parameters = PatchParams::apply(&format!("bench-{}", write.by.replace(':', "-"))).force();
        api.patch_status(name, &parameters, &Patch::Apply(&body)).await?;
    } else {
        api.patch(name, &PatchParams::default(), &Patch::Merge(&body)).await?;
    }
    Ok(())
}

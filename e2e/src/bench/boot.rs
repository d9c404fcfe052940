//! From `apply` to Running in a watch, over defining and starting the same domain through libvirt directly, with QEMU. The two take turns.

use super::table::{Row, Table, percentile};
use crate::Result;
use crate::host::Host as BedHost;
use crate::story::Story;
use crds::virtual_machine::{MachinePhase, VirtualMachine};
use futures::TryStreamExt;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{Config, Event, watcher};
use libvirt::{Libvirt, Settings};
use libvirt_xml::Domain;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;
const TARGET: f64 = 1.15;
const HOST: &str = "node-a";
const UUID: &str = "5f1d5e3c-0000-4000-8000-0000000000b0";

/// Measures.
///
/// # Errors
/// When libvirt or the API server refuses.
pub async fn measure(table: &mut Table) -> Result<()> {
    let story = Story::alone("bench-boot").await;
    let (libvirt, mut events) = Libvirt::start(Settings::new(BedHost::of(&story.run, 0).libvirt_uri()))?;
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await?;
    let (mut ours, mut direct) = (Vec::new(), Vec::new());
    let mut xml = None;
    for round in 0..ROUNDS {
        let name = format!("vm{round}");
        ours.push(applied(&story, &name).await?);
        if xml.is_none() {
            xml = Some(same_domain(&story, &libvirt, &name).await?);
        }
        story.delete::<VirtualMachine>(&name).await;
        direct.push(defined(&libvirt, xml.clone().unwrap_or_default()).await?);
    }
    story.end().await;
    let ratio = |part| percentile(&ours, part) / percentile(&direct, part);
    let seconds = |values: &[f64], part| format!("{:.3} s", percentile(values, part));
    let rows = [
        Row::told("define and start by libvirt alone, p50", seconds(&direct, 0.5)),
        Row::told("apply to Running, p50", seconds(&ours, 0.5)),
        Row::at_most("ratio, p50", ratio(0.5), TARGET, ""),
        Row::at_most("ratio, p95", ratio(0.95), TARGET, ""),
    ];
    table.add("a machine's start with QEMU", rows);
    Ok(())
}

/// Seconds from a machine's apply until a watch tells that it runs.
async fn applied(story: &Story, name: &str) -> Result<f64> {
    let runs =
        |vm: &VirtualMachine| vm.status.as_ref().is_some_and(|status| status.phase == Some(MachinePhase::Running));
    seconds_until(story, name, story.bare(name, json!({"placement": {"host": HOST}})), runs).await
}

/// Seconds from a manifest's apply until a watch tells that its object is so.
///
/// # Errors
/// When the API server refuses, or it takes too long.
pub async fn seconds_until<K>(story: &Story, name: &str, manifest: Value, so: impl Fn(&K) -> bool) -> Result<f64>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut watch = std::pin::pin!(watcher(story.api::<K>(), config));
    while !matches!(watch.try_next().await?, Some(Event::InitDone) | None) {}
    let begun = Instant::now();
    story.apply(manifest).await?;
    let seen = async {
        while let Some(event) = watch.try_next().await? {
            if let Event::Apply(object) = event
                && so(&object)
            {
                return Ok(begun.elapsed().as_secs_f64());
            }
        }
        Err("the watch ended".into())
    };
    tokio::time::timeout(crate::story::PATIENCE, seen).await?
}

/// XML of the machine's domain with another name, for nobody.
async fn same_domain(story: &Story, libvirt: &Libvirt, vm: &str) -> Result<String> {
    let uuid = libvirt.domain_named(&story.domain_name(vm)).await?.ok_or("the machine has no domain")?;
    let detail = libvirt.domain(&uuid).await?.ok_or("the machine has no domain")?;
    let domain = Domain::parse(&detail.inactive_xml)?;
    Ok(Domain { name: "bench-direct".into(), uuid: UUID.into(), mark: None, ..domain }.render()?)
}

/// Seconds that libvirt takes; the domain is removed again.
async fn defined(libvirt: &Libvirt, xml: String) -> Result<f64> {
    let begun = Instant::now();
    libvirt.define(xml).await?;
    libvirt.create(UUID).await?;
    let seconds = begun.elapsed().as_secs_f64();
    libvirt.destroy(UUID).await?;
    libvirt.undefine(UUID).await?;
    Ok(seconds)
}

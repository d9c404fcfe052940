//! A thousand machines on the test driver: how fast they come, over a loop of the same libvirt calls and API writes, and how much memory
//! they take in agent, controller and libvirtd.

use super::audit::Mark;
use super::reference::{self, Cost};
use super::restart;
use super::rss::Rss;
use super::table::{Row, Table};
use super::test_host::TestHost;
use crate::Result;
use crate::story::Story;
use crds::virtual_machine::{MachinePhase, VirtualMachine};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::runtime::watcher::{Config, Event, watcher};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const MACHINES: usize = 1000;
const FEW: usize = 100;
/// Applies under way at once: what a person's tools do.
const AT_ONCE: usize = 8;
const RATE: f64 = 0.5;
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures all that needs a thousand machines.
///
/// # Errors
/// When the API server, libvirt or the log refuses.
pub async fn measure(table: &mut Table) -> Result<()> {
    let story = Story::alone("bench-fleet").await;
    let mut host = TestHost::start(&story).await?;
    let mut memory = vec![held(&story, &host, 0)?];
    let (begun, calls) = (Mark::now(&story.run)?, host.calls().await?);
    let mut seconds = come(&story, &host, 0..FEW).await?;
    memory.push(held(&story, &host, FEW)?);
    seconds += come(&story, &host, FEW..MACHINES).await?;
    super::idle::settle(&story).await?;
    memory.push(held(&story, &host, MACHINES)?);
    let cost = Cost::of(&story, &name(FEW), &begun.writes()?, &calls, &host.calls().await?, MACHINES);
    table.add("memory of agent, controller and libvirtd", memory.into_iter().flatten());
    table.add("an agent restarts with 1000 domains", restart::measure(&story, &mut host).await?);

    let loops = reference::measure(&story, &mut host, &name(FEW), &cost).await?;
    let ours = MACHINES as f64 / seconds;
    let rows = [
        Row::told("a loop of the same calls and writes", format!("{loops:.1} a second")),
        Row::told("machines to Running", format!("{ours:.1} a second")),
        Row::at_least("ratio of the rates", ours / loops, RATE, ""),
    ];
    table.add("1000 machines on the test driver", cost.rows().into_iter().chain(rows));
    story.empty().await;
    host.end(&story).await?;
    story.end().await;
    Ok(())
}

fn name(index: usize) -> String {
    format!("vm{index}")
}

/// Applies machines and gives the seconds until a watch told that all run.
async fn come(story: &Story, host: &TestHost, which: std::ops::Range<usize>) -> Result<f64> {
    let mut waited: BTreeSet<String> = which.clone().map(name).collect();
    let mut watch = std::pin::pin!(watcher(story.api::<VirtualMachine>(), Config::default()));
    while !matches!(watch.try_next().await?, Some(Event::InitDone) | None) {}
    let begun = Instant::now();
    let applies = async {
        let applies = stream::iter(which).map(|index| story.apply(host.machine(&name(index))));
        applies.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await.map(drop)
    };
    let run = async {
        while !waited.is_empty() {
            let Some(event) = watch.try_next().await? else { return Err("the watch ended".into()) };
            if let Event::Apply(vm) | Event::InitApply(vm) = event
                && vm.status.as_ref().is_some_and(|status| status.phase == Some(MachinePhase::Running))
            {
                waited.remove(&vm.name_any());
            }
        }
        Ok::<_, crate::Error>(begun.elapsed().as_secs_f64())
    };
    let both = async { tokio::try_join!(async { Ok(applies.await?) }, run) };
    Ok(tokio::time::timeout(PATIENCE, both).await??.1)
}

/// What each process holds.
fn held(story: &Story, host: &TestHost, machines: usize) -> Result<Vec<Row>> {
    let of = |program: &str| story.pid(program).and_then(|pid| u32::try_from(pid).ok()).ok_or("it does not run");
    let processes =
        [("agent", host.agent_pid()?), ("controller", of("controller")?), ("libvirtd", of("libvirtd-node-a")?)];
    let row = |(who, pid): (&str, u32)| {
        Ok(Row::told(format!("{who} with {machines} machines"), format!("{:.0} MiB", Rss::of(pid)?.mebibytes())))
    };
    processes.into_iter().map(row).collect()
}

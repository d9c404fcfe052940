//! A disk-only snapshot of a running machine: how often it makes us write, and its time over `virsh snapshot-create-as --disk-only --atomic`.

use super::audit::{Mark, explain};
use super::boot::seconds_until;
use super::table::{Row, Table, percentile};
use crate::Result;
use crate::story::Story;
use crds::Snapshot;
use serde_json::json;
use std::time::{Duration, Instant};

/// Pairs of machines, one after another.
const PAIRS: usize = 4;
/// Snapshots of each.
const ROUNDS: usize = 10;
const TARGET: f64 = 1.2;
const HOST: &str = "node-a";
const NAME: &str = "snapped";
/// What follows a state by itself follows within this.
const ECHO: Duration = Duration::from_secs(3);

/// Counts the writes that the second snapshot of a machine makes.
///
/// # Errors
/// When the log cannot be read.
pub async fn counts(story: &Story) -> Result<Vec<Row>> {
    story.apply(story.with_disks(NAME, &[("a", "Qcow2"), ("b", "Raw")], json!({}))).await?;
    story.vm_is(NAME, "True", "Running").await;
    story.take("first", NAME, json!({})).await;
    tokio::time::sleep(ECHO).await;
    let begun = Mark::now(&story.run)?;
    story.take("second", NAME, json!({})).await;
    // They are counted in libvirt every 20 s; a machine that is told of later is told of once.
    tokio::time::sleep(ECHO * 8).await;
    let all = begun.writes()?;
    let rows = [
        ("writes to a snapshot until it is ready", "snapshots", "second".to_owned(), 4),
        ("writes to its machine", "virtualmachines", NAME.into(), 1),
        ("writes to its parent", "snapshots", "first".into(), 1),
        ("writes to each volume", "storagevolumes", format!("{NAME}-a"), 1),
        ("writes to each volume, raw", "storagevolumes", format!("{NAME}-b"), 1),
    ];
    let count = |(what, resource, name, limit): (&str, &str, String, usize)| {
        let of: Vec<_> = all.iter().filter(|write| write.is_to(resource, &story.namespace, &name)).collect();
        explain(what, &of, limit);
        Row::count(what, of.len(), limit)
    };
    Ok(rows.into_iter().map(count).collect())
}

/// Times snapshots of machines by us and of others by virsh, which take turns.
///
/// # Errors
/// When libvirt or the API server refuses.
pub async fn measure(table: &mut Table) -> Result<()> {
    let story = Story::alone("bench-snapshot").await;
    let (mut ours, mut direct) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let [mine, theirs] = ["ours", "direct"].map(|of| format!("{of}-{pair}"));
        for machine in [&mine, &theirs] {
            story.apply(story.with_disks(machine, &[("a", "Qcow2")], json!({}))).await?;
            story.vm_is(machine, "True", "Running").await;
        }
        for round in 0..ROUNDS {
            let name = format!("s{pair}-{round}");
            let manifest = story.snapshot_manifest(&name, &mine, json!({}));
            let ready =
                |snapshot: &Snapshot| snapshot.status.as_ref().is_some_and(|status| status.ready_to_use == Some(true));
            ours.push(seconds_until(&story, &name, manifest, ready).await?);
            let begun = Instant::now();
            let domain = story.domain_name(&theirs);
            story.virsh(HOST, &["snapshot-create-as", &domain, &name, "--disk-only", "--atomic"])?;
            direct.push(begun.elapsed().as_secs_f64());
        }
    }
    story.end().await;
    let seconds = |values: &[f64], part| format!("{:.3} s", percentile(values, part));
    let ratio = |part| percentile(&ours, part) / percentile(&direct, part);
    let rows = [
        Row::told("virsh snapshot-create-as --disk-only --atomic, p50", seconds(&direct, 0.5)),
        Row::told("apply to ready, p50", seconds(&ours, 0.5)),
        Row::at_most("ratio, p50", ratio(0.5), TARGET, ""),
        Row::at_most("ratio, p95", ratio(0.95), TARGET, ""),
    ];
    table.add("a disk-only snapshot of a running machine", rows);
    Ok(())
}

//! A minute in which nobody asks for anything, with a hundred machines: what is written nevertheless.

use super::audit::{Mark, Write, explain};
use super::table::Row;
use super::test_host::{self, TestHost};
use crate::story::Story;
use crate::{HOSTS, Result};
use std::time::Duration;

const MACHINES: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);
/// What is coalesced goes out within 10 s.
const SETTLED: Duration = Duration::from_secs(12);

/// Fills up to a hundred machines, waits until all is told, and counts for a minute.
///
/// # Errors
/// When the log cannot be read.
pub async fn measure(story: &Story, host: &TestHost, there: usize) -> Result<Vec<Row>> {
    for index in there..MACHINES {
        story.apply(host.machine(&format!("idle{index}"))).await?;
    }
    for index in there..MACHINES {
        story.vm_is(&format!("idle{index}"), "True", "Running").await;
    }
    settle(story).await?;
    let begun = Mark::now(&story.run)?;
    tokio::time::sleep(MINUTE).await;
    let all = begun.writes()?;

    let (leases, other): (Vec<_>, Vec<_>) = all.iter().partition(|write| write.resource == "leases");
    let of = |name: &str| leases.iter().filter(|write| write.name == name).count();
    explain("writes but Leases", &other, 0);
    let hosts = HOSTS.iter().chain([&test_host::NAME]);
    let hosts = hosts.map(|name| Row::count(format!("renewals of {name}'s Lease"), of(name), 7));
    Ok(hosts
        .chain([
            Row::count("renewals of the leader's Lease", of("virtfleet-controller"), 13),
            Row::count("other writes", other.len(), 0),
        ])
        .collect())
}

/// Waits until nothing but Leases was written for a while.
///
/// # Errors
/// When the log cannot be read.
pub async fn settle(story: &Story) -> Result<()> {
    for _ in 0..20 {
        let begun = Mark::now(&story.run)?;
        tokio::time::sleep(SETTLED).await;
        if begun.writes()?.iter().all(is_lease) {
            return Ok(());
        }
    }
    Ok(())
}

fn is_lease(write: &Write) -> bool {
    write.resource == "leases"
}

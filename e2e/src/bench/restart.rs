//! An agent that starts again with a thousand domains: it writes nothing, touches nothing, and is ready soon.

use super::audit::{Mark, explain};
use super::table::{Row, percentile};
use super::test_host::TestHost;
use crate::Result;
use crate::story::{Story, until};
use std::time::{Duration, Instant};

const LISTINGS: usize = 5;
/// Functions of libvirt that only read.
const READS: [&str; 3] = ["List", "Get", "Lookup"];

/// Kills the agent, and looks until it has looked at everything.
///
/// # Errors
/// When libvirt, the agent or the log does not answer.
pub async fn measure(story: &Story, host: &mut TestHost) -> Result<Vec<Row>> {
    let mut listings = Vec::new();
    for _ in 0..LISTINGS {
        let begun = Instant::now();
        host.libvirt.domains().await?;
        listings.push(begun.elapsed().as_secs_f64());
    }
    let listing = percentile(&listings, 0.5);
    let before = Mark::now(&story.run)?;
    let begun = Instant::now();
    host.restart_agent().await?;
    until("the agent again", async || host.ask("/readyz").await).await;
    let ready = begun.elapsed().as_secs_f64();
    let passes = quiet(host).await?;
    let all = begun.elapsed() - QUIET;

    let writes = before.writes()?;
    let other: Vec<_> = writes.iter().filter(|write| write.resource != "leases").collect();
    explain("writes but Leases", &other, 0);
    let calls = host.calls().await?;
    let touched = calls.iter().filter(|(name, _)| !READS.iter().any(|read| name.contains(read)));
    let touched: u64 = touched.inspect(|(name, count)| println!("-- {count} calls of {name}")).map(|(_, n)| n).sum();
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    Ok(vec![
        Row::count("writes but the Lease", other.len(), 0),
        Row::count("calls of libvirt that change something", count(touched), 0),
        Row::told("a bulk listing by libvirt, p50", format!("{listing:.3} s")),
        Row::at_most("ready after", ready, ((listing * 5.0 + 1.0) * 100.0).round() / 100.0, " s"),
        Row::told("all looked at after", format!("{:.1} s", all.as_secs_f64())),
        Row::told("passes for that", passes.to_string()),
        Row::told("calls of libvirt for that", calls.iter().map(|(_, count)| count).sum::<u64>().to_string()),
    ])
}

const QUIET: Duration = Duration::from_secs(3);

/// Waits until the agent makes no more passes, and gives how many it made.
async fn quiet(host: &TestHost) -> Result<u64> {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let passes = passes(&host.ask("/metrics").await?);
        if passes != before {
            (before, since) = (passes, Instant::now());
        }
        if since.elapsed() >= QUIET {
            return Ok(passes);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn passes(metrics: &str) -> u64 {
    let counts = metrics.lines().filter(|line| line.starts_with("virtfleet_reconcile_total{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

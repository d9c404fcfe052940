//! `bench`: measures on the bed that `VIRTFLEET_RUN` names; `e2e/bench.sh` brings it up. Fails when a count is above its limit.

use clap::Parser;
use e2e::bench::{Measurement, table::Table};
use std::process::ExitCode;

/// What the product's work costs, as counts and ratios.
#[derive(Parser)]
struct Args {
    /// What to measure; without any: everything.
    what: Vec<Measurement>,
}

#[tokio::main]
async fn main() -> e2e::Result<ExitCode> {
    let Args { what } = Args::parse();
    let mut table = Table::default();
    for measurement in Measurement::ALL {
        if what.is_empty() || what.contains(&measurement) {
            measurement.take(&mut table).await?;
        }
    }
    let exceeded = table.exceeded();
    exceeded.iter().for_each(|row| println!("EXCEEDED  {row}"));
    Ok(if exceeded.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

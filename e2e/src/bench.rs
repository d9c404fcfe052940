//! `make bench`: what the product's work costs. Counts gate; ratios are told beside their targets. One file a measurement. Does I/O.

pub mod audit;
pub mod boot;
pub mod fleet;
pub mod guest_news;
pub mod idle;
pub mod import;
pub mod machine_life;
pub mod reference;
pub mod restart;
pub mod rss;
pub mod snapshot;
pub mod table;
pub mod test_host;
pub mod volume;

use crate::Result;
use crate::story::Story;
use audit::Mark;
use table::Table;
use test_host::TestHost;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measurement {
    /// The counts that gate, in a few minutes.
    Counts,
    /// A machine's start with QEMU.
    Boot,
    /// Snapshots of a running machine.
    Snapshot,
    /// Imports of large images.
    Import,
    /// A thousand machines on libvirt's test driver.
    Fleet,
}

impl Measurement {
    /// All, in their order.
    pub const ALL: [Measurement; 5] =
        [Measurement::Counts, Measurement::Boot, Measurement::Snapshot, Measurement::Import, Measurement::Fleet];

    /// Measures, and puts the figures into the table.
    ///
    /// # Errors
    /// When something could not be measured.
    pub async fn take(self, table: &mut Table) -> Result<()> {
        match self {
            Measurement::Counts => counts(table).await,
            Measurement::Boot => boot::measure(table).await,
            Measurement::Snapshot => snapshot::measure(table).await,
            Measurement::Import => import::measure(table).await,
            Measurement::Fleet => fleet::measure(table).await,
        }
    }
}

async fn counts(table: &mut Table) -> Result<()> {
    let story = Story::alone("bench").await;
    let begun = Mark::now(&story.run)?;
    let (life, guest) = tokio::join!(machine_life::measure(&story), guest_news::measure(&story));
    table.add("a machine, by the API server's audit log", life?.into_iter().chain(guest?));
    table.add("a snapshot of a running machine", snapshot::counts(&story).await?);
    table.add("an imported volume of a template", volume::measure(&story, &begun)?);
    let host = TestHost::start(&story).await?;
    table.add("a minute of idling with 100 machines", idle::measure(&story, &host, 1).await?);
    story.empty().await;
    host.end(&story).await?;
    story.end().await;
    Ok(())
}

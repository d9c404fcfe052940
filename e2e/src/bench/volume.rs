//! How often we write a StorageVolume of a template until it is ready: the one that `guest_news` had imported.

use super::audit::{Mark, Write, explain};
use super::guest_news;
use super::table::Row;
use crate::Result;
use crate::story::Story;

/// Counts what the log holds since `begun`.
///
/// # Errors
/// When the log cannot be read.
pub fn measure(story: &Story, begun: &Mark) -> Result<Vec<Row>> {
    let name = format!("{}-root", guest_news::NAME);
    let all = begun.writes()?;
    let of: Vec<_> = all.iter().filter(|write| write.is_to("storagevolumes", &story.namespace, &name)).collect();
    let (imports, of): (Vec<_>, Vec<_>) = of.into_iter().partition(|write| is_progress(write));
    explain("writes until it is ready", &of, 4);
    Ok(vec![
        Row::count("writes to it until it is ready", of.len(), 4),
        Row::told("progress of its import besides", imports.len().to_string()),
    ])
}

/// How far its import is, from the first word that it began.
fn is_progress(write: &Write) -> bool {
    write.body["status"]["phase"] == "Importing"
}

//! How far a snapshot was merged by a libvirtd that was killed before it noted that. Between QEMU's last step of a merge and its own notes it
//! believes in an overlay that QEMU has left, for the file below: what the guest writes from then on is there, and the overlay out of date.

use super::behind::is_gone;
use crate::chains;
use crate::context::Context;
use crate::files;
use libvirt_xml::snapshot::{Disk, Snapshot};
use libvirt_xml::{Chain, DISK_ALIAS, Domain, Facts, Merged};
use plan::snapshot::{Attempt, MergeStage};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What there is of the machine of a snapshot that goes.
pub struct Looked<'a> {
    /// libvirt's UUID of the domain.
    pub domain: &'a str,
    /// libvirt's record of the snapshot that goes.
    pub record: &'a Snapshot,
    /// All records of the domain's snapshots.
    pub records: &'a [Snapshot],
    /// What the definition names.
    pub config: &'a Facts,
    /// What libvirt believes that the running guest has.
    pub live: Option<&'a (Domain, Facts)>,
    /// What this agent tried last.
    pub attempt: &'a Attempt,
}

/// How far the snapshot was merged, and its overlays that were and are gone, with the files below them.
pub async fn stage(context: &Context, looked: &Looked<'_>) -> (MergeStage, Vec<Merged>) {
    let Looked { record, records, config, attempt, .. } = looked;
    let none = (MergeStage::NotBegun, Vec::new());
    if **attempt == Attempt::Merging {
        return none;
    }
    let left = left(context, looked).await;
    let merged = record.disks.iter().filter(|disk| Path::new(&disk.file).is_file()).filter_map(|disk| {
        let overlay = disk.overlay.clone().filter(|overlay| is_merged(looked, disk, overlay, &left))?;
        Some(Merged { overlay, below: disk.file.clone(), format: disk.format })
    });
    let (gone, there): (Vec<_>, Vec<_>) = merged.partition(|merged| is_gone(&merged.overlay));
    let is_one = |file: &String| gone.iter().any(|merged| merged.overlay == *file);
    let is_kept_in_one = |other: &&Snapshot| other.disks.iter().any(|disk| is_one(&disk.file));
    let stage = if let Some(merged) = there.into_iter().next() {
        MergeStage::InQemu { overlay: merged.overlay }
    } else if gone.is_empty() {
        return none;
    } else if config.files.iter().any(is_one) {
        MergeStage::InFiles
    } else if let Some(other) = records.iter().find(is_kept_in_one) {
        MergeStage::Below { snapshot: other.name.clone() }
    } else if gone.len() < record.disks.len() {
        MergeStage::Partly
    } else {
        MergeStage::Everywhere
    };
    (stage, gone)
}

/// Whether an overlay has been merged for certain. That somebody removed it says so only where nothing is on it.
fn is_merged(looked: &Looked<'_>, disk: &Disk, overlay: &str, left: &[String]) -> bool {
    let is_next = |other: &&Disk| other.file == overlay;
    let live = || looked.live.into_iter().flat_map(|(_, live)| &live.disks);
    // As libvirt believes.
    let above = || live().find_map(|chain| above(chain, overlay));
    match &*looked.records.iter().flat_map(|record| &record.disks).filter(is_next).collect::<Vec<_>>() {
        [] if live().any(|chain| chain.file == overlay) => left.iter().any(|left| left == overlay),
        [] => is_gone(overlay) && above().is_none_or(|above| is_over(above, &disk.file)),
        // QEMU notes in the overlay that follows that it lies over the file below, once all is there.
        [next] => next.overlay.as_deref().is_some_and(|next| is_over(next, &disk.file)) && holds(&disk.file, overlay),
        _ => false,
    }
}

/// The file right above one in a chain.
fn above<'a>(chain: &'a Chain, file: &str) -> Option<&'a str> {
    let at = chain.below.iter().position(|below| below == file)?;
    Some(at.checked_sub(1).map_or(&chain.file, |above| &chain.below[above]))
}

fn is_over(overlay: &str, below: &str) -> bool {
    chains::under(overlay).is_ok_and(|under| under.is_some_and(|(file, _)| file == below))
}

/// Whether what was in an overlay that nothing is on is below it: the file below was written to after it. Else somebody let the overlay that
/// follows pull its contents up.
fn holds(below: &str, overlay: &str) -> bool {
    let written = |file: &str| fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    is_gone(overlay) || written(below) >= written(overlay) || chains::is_blank(Path::new(overlay)).unwrap_or(false)
}

/// The overlays on which libvirt has the running guest, though QEMU has it on the file below. libvirt takes it amiss that QEMU is asked: only
/// where something says that it may be so.
async fn left(context: &Context, looked: &Looked<'_>) -> Vec<String> {
    let live = || looked.live.into_iter().flat_map(|(live, _)| &live.disks);
    let named = |disk: &Disk| live().find(|now| Some(&now.file) == disk.overlay.as_ref()).map(|now| now.name.clone());
    let on: Vec<(String, Disk)> =
        looked.record.disks.iter().filter_map(|disk| Some((named(disk)?, disk.clone()))).collect();
    let has_failed = matches!(looked.attempt, Attempt::Failed { .. });
    let odd = tokio::task::spawn_blocking(move || {
        let is_odd = |disk: &Disk| disk.overlay.as_deref().is_some_and(is_gone) || is_written_to(&disk.file);
        (!on.is_empty() && (has_failed || on.iter().any(|(_, disk)| is_odd(disk)))).then_some(on)
    });
    let Ok(Some(on)) = odd.await else { return Vec::new() };
    let told = context.libvirt.qemu_block_devices(looked.domain).await.map_err(|error| error.to_string());
    match told.and_then(|told| serde_json::from_str::<Value>(&told).map_err(|error| error.to_string())) {
        Ok(told) => {
            let is_below = |(name, disk): &(String, Disk)| file(&told, name).as_ref() == Some(&disk.file);
            on.into_iter().filter(is_below).filter_map(|(_, disk)| disk.overlay).collect()
        }
        Err(error) => {
            tracing::warn!("asking QEMU for the files of domain {}: {error}", looked.domain);
            Vec::new()
        }
    }
}

/// Whether a QEMU has a file open to write: that below an overlay only while it merges, and when the guest is on it. Asked for by a lock
/// that suffers no writer beside it, which a raw file alone does not ask for.
fn is_written_to(file: &str) -> bool {
    let below = json!({"driver": "file", "filename": file});
    let options = json!({"driver": "blkdebug", "unshare-child-perms": ["write"], "image": below});
    let asked = files::qemu_img(&["info"], Path::new(&format!("json:{options}")), &[]);
    asked.is_err_and(|failure| failure.message.contains(" lock"))
}

/// The file that a disk of the guest's is on, by QEMU's answer to `query-block`.
fn file(told: &Value, disk: &str) -> Option<String> {
    let alias = format!("{DISK_ALIAS}{disk}");
    let is_of = |device: &&Value| device["qdev"].as_str().is_some_and(|path| path.split('/').any(|part| part == alias));
    let device = told["return"].as_array()?.iter().find(is_of)?;
    let name = device["inserted"]["file"].as_str()?;
    // Where a name does not tell all, QEMU gives the options that it opened the file with.
    let Some(options) = name.strip_prefix("json:") else { return Some(name.to_owned()) };
    let mut options: &Value = &serde_json::from_str(options).ok()?;
    while options["filename"].is_null() && options["file"].is_object() {
        options = &options["file"];
    }
    options["filename"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn the_file_of_a_disk_is_told_by_its_device_however_qemu_writes_it() {
        let device = |qdev: &str, file: &str| json!({"device": "", "qdev": qdev, "inserted": {"file": file}});
        let told = json!({"id": "libvirt-7", "return": [
            {"device": "", "qdev": "/machine/peripheral/ua-disk-cd/virtio-backend"},
            device("/machine/peripheral/ua-disk-a/virtio-backend", "/p/a.raw"),
            device("ua-disk-b", r#"json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/p/b.qcow2"}}"#),
            device("ua-disk-c", "json:{"),
        ]});
        assert_eq!(file(&told, "a").as_deref(), Some("/p/a.raw"));
        assert_eq!(file(&told, "b").as_deref(), Some("/p/b.qcow2"));
        assert_eq!(["c", "cd", "disk-a", ""].map(|disk| file(&told, disk)), [None, None, None, None]);
        assert_eq!(file(&json!({"return": []}), "a"), None);
    }

    #[test]
    fn a_file_is_written_to_while_a_qemu_has_it_open_for_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (base, over) = (path("base"), path("over"));
        let made = |words: &[&str]| Command::new("qemu-img").args(words).output().unwrap().status.success();
        assert!(made(&["create", "-q", "-f", "raw", &base, "1M"]) && !is_written_to(&base));
        assert!(made(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &over]));
        for (words, expected) in [(["-f", "raw", &base], true), (["-f", "qcow2", &over], false)] {
            let mut qemu = Command::new("qemu-io");
            let mut qemu = qemu.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            writeln!(qemu.stdin.as_mut().unwrap(), "write 0 512").unwrap();
            let mut said = String::new();
            BufReader::new(qemu.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
            assert_eq!(is_written_to(&base), expected, "{words:?}: {said}");
            drop(qemu.stdin.take());
            assert!(qemu.wait().unwrap().success());
        }
    }
}

//! An overlay that a running guest has left: a libvirtd that is killed between QEMU's switch to the file below, at the end of a merge, and
//! its own notes believes in the overlay. What the guest writes from then on is in the file below, and the overlay is out of date.

use super::behind::is_gone;
use crate::context::Context;
use crate::files;
use libvirt_xml::snapshot::{Disk, Snapshot};
use libvirt_xml::{DISK_ALIAS, Domain};
use plan::snapshot::Attempt;
use serde_json::{Value, json};
use std::path::Path;

/// The overlays of a snapshot on which libvirt has the running guest, though QEMU has it on the file below. libvirt takes it amiss that QEMU
/// is asked: only where something says that it may be so.
pub async fn left(
    context: &Context,
    domain: &str,
    snapshot: Option<&Snapshot>,
    live: Option<&Domain>,
    attempt: &Attempt,
) -> Vec<String> {
    let (Some(snapshot), Some(live)) = (snapshot, live) else { return Vec::new() };
    if *attempt == Attempt::Merging {
        return Vec::new();
    }
    let is_live = |disk: &Disk| {
        let of = |other: &&libvirt_xml::Disk| Some(&other.name) == disk.name.as_ref();
        live.disks.iter().find(of).is_some_and(|now| Some(&now.file) == disk.overlay.as_ref())
    };
    let on = snapshot.disks.iter().filter(|disk| is_live(disk) && Path::new(&disk.file).is_file());
    let (on, has_failed) = (on.cloned().collect::<Vec<_>>(), matches!(attempt, Attempt::Failed { .. }));
    let looked = tokio::task::spawn_blocking(move || {
        let is_odd = |disk: &Disk| disk.overlay.as_deref().is_some_and(is_gone) || is_written_to(&disk.file);
        (has_failed || on.iter().any(is_odd)).then_some(on)
    });
    let Ok(Some(on)) = looked.await else { return Vec::new() };
    let told = context.libvirt.qemu_block_devices(domain).await.map_err(|error| error.to_string());
    match told.and_then(|told| serde_json::from_str::<Value>(&told).map_err(|error| error.to_string())) {
        Ok(told) => {
            let is_below =
                |disk: &Disk| disk.name.as_ref().and_then(|name| file(&told, name)).as_ref() == Some(&disk.file);
            on.into_iter().filter(is_below).filter_map(|disk| disk.overlay).collect()
        }
        Err(error) => {
            tracing::warn!("asking QEMU for the files of {}: {error}", live.name);
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

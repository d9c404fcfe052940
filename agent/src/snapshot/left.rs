//! An overlay that a running guest has left: a libvirtd that is killed between QEMU's switch to the file below, at the end of a merge, and
//! its own notes believes in the overlay. What the guest writes from then on is in the file below, and the overlay is out of date.

use crate::context::Context;
use libvirt_xml::snapshot::{Disk, Snapshot};
use libvirt_xml::{DISK_ALIAS, Domain};
use plan::snapshot::Attempt;
use serde_json::Value;
use std::path::Path;

/// The first overlay of a snapshot that QEMU has left for the file below it, though libvirt has the guest on it. libvirt takes it amiss that
/// QEMU is asked: only after a merge failed, which QEMU refuses then.
pub async fn left(
    context: &Context,
    domain: &str,
    snapshot: &Snapshot,
    live: &Domain,
    attempt: &Attempt,
) -> Option<String> {
    let may_be = |disk: &&Disk| {
        let of = |other: &&libvirt_xml::Disk| Some(&other.name) == disk.name.as_ref();
        let now = live.disks.iter().find(of).map(|now| &now.file);
        now.is_some() && now == disk.overlay.as_ref() && now.is_some_and(|file| Path::new(file).exists())
    };
    let may_be: Vec<_> = snapshot.disks.iter().filter(may_be).collect();
    if may_be.is_empty() || !matches!(attempt, Attempt::Failed { .. }) {
        return None;
    }
    let told = context.libvirt.qemu_block_devices(domain).await;
    let told = told.inspect_err(|error| tracing::warn!("asking QEMU for the files of {}: {error}", live.name)).ok()?;
    let told: Value = serde_json::from_str(&told).ok()?;
    let is_left = |disk: &&&Disk| disk.name.as_ref().and_then(|name| file(&told, name)).as_ref() == Some(&disk.file);
    may_be.iter().find(is_left).and_then(|disk| disk.overlay.clone())
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
    use super::*;
    use serde_json::json;

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
}

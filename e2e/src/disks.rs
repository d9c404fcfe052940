//! What stories do with machines' disks: take snapshots of them, write to them from within the guest, look at their files. Does I/O.

use crate::Result;
use crate::story::{Story, is, manifest, merged, until};
use crds::Snapshot;
use crds::conditions::Type;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

impl Story {
    /// Manifest of a snapshot of a machine.
    pub fn snapshot_manifest(&self, name: &str, machine: &str, spec: Value) -> Value {
        manifest("Snapshot", name, merged(json!({"virtualMachine": machine}), spec))
    }

    /// A snapshot as it is now.
    pub async fn snapshot(&self, name: &str) -> Option<Snapshot> {
        self.api().get_opt(name).await.unwrap_or_default()
    }

    /// Waits until the snapshot's Ready is of that status and reason.
    pub async fn snapshot_is(&self, name: &str, status: &str, reason: &str) -> Snapshot {
        until(&format!("Snapshot {name} Ready={status}/{reason}"), async || {
            let snapshot = self.snapshot(name).await.ok_or("it is not there".to_owned())?;
            let conditions = snapshot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            is(&conditions, Type::Ready, status, reason, None).map(|()| snapshot)
        })
        .await
    }

    /// Applies a snapshot of a machine and waits until it is there.
    pub async fn take(&self, name: &str, machine: &str, spec: Value) -> Snapshot {
        self.apply(self.snapshot_manifest(name, machine, spec)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        self.snapshot_is(name, "True", "Ready").await
    }

    /// A machine without operating system on node-a, with blank disks of these names and formats.
    pub fn with_disks(&self, name: &str, disks: &[(&str, &str)], spec: Value) -> Value {
        let disk = |(disk, format): &(&str, &str)| {
            let spec = json!({"storagePool": self.namespace, "capacity": "64Mi", "format": format});
            json!({"name": disk, "volumeTemplate": {"spec": spec}})
        };
        let disks: Vec<_> = disks.iter().map(disk).collect();
        self.bare(name, merged(json!({"placement": {"host": "node-a"}, "disks": disks}), spec))
    }

    /// Writes bytes of one value as the guest of a machine on node-a would.
    ///
    /// # Errors
    /// libvirt's.
    pub fn write(&self, machine: &str, disk: &str, value: u8, at: &str, length: &str) -> Result<()> {
        for command in [format!("write -P {value} {at} {length}"), "flush".into()] {
            let said = self.qemu_io(machine, disk, &command)?;
            assert!(!said.contains("rror"), "{disk}: {command}: {said}");
        }
        Ok(())
    }

    /// Whether bytes are all of one value, as the guest of a machine on node-a sees them.
    ///
    /// # Errors
    /// libvirt's.
    pub fn reads(&self, machine: &str, disk: &str, value: u8, at: &str, length: &str) -> Result<bool> {
        let said = self.qemu_io(machine, disk, &format!("read -P {value} {at} {length}"))?;
        assert!(!said.contains("rror"), "{disk}: {said}");
        Ok(!said.contains("Pattern verification failed"))
    }

    fn qemu_io(&self, machine: &str, disk: &str, command: &str) -> Result<String> {
        let line = format!("qemu-io -d /machine/peripheral/ua-disk-{disk}/virtio-backend \"{command}\"");
        self.virsh("node-a", &["qemu-monitor-command", &self.domain_name(machine), "--hmp", &line])
    }

    /// Name, mode and length of each file in the story's pool on node-a.
    pub fn pool_files(&self) -> Vec<(String, u32, u64)> {
        let dir = self.outside("node-a", &format!("/var/lib/virtfleet/{}", self.namespace));
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        // The pool's own mark is no volume's.
        let entries = entries.filter(|entry| entry.file_name() != ".virtfleet-pool");
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                let mode = metadata.permissions().mode() & 0o777;
                Some((entry.file_name().to_string_lossy().into_owned(), mode, metadata.len()))
            })
            .collect();
        files.sort();
        files
    }

    /// The byte at a place of a raw file on node-a.
    ///
    /// # Errors
    /// The file system's.
    pub fn byte(&self, path: &str, at: u64) -> Result<u8> {
        let mut byte = [0];
        fs::File::open(self.outside("node-a", path))?.read_exact_at(&mut byte, at)?;
        Ok(byte[0])
    }

    /// The files that a machine's domain on node-a is on, in the order of its disks.
    pub fn sources(&self, machine: &str) -> Vec<String> {
        let list = self.virsh("node-a", &["domblklist", &self.domain_name(machine)]).unwrap_or_default();
        list.lines().filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
    }

    /// Names of a machine's snapshots in node-a's libvirt.
    pub fn in_libvirt(&self, machine: &str) -> Vec<String> {
        let list = self.virsh("node-a", &["snapshot-list", "--name", &self.domain_name(machine)]).unwrap_or_default();
        list.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    }
}

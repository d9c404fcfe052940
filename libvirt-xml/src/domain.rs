//! What we own of a domain.

use crate::mark::Mark;
use crate::tree::Tree;
use crate::{Error, domain_edit, domain_read, mark};

/// What we own of a domain: wanted, or read by our aliases from libvirt's XML.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// Name in libvirt.
    pub name: String,
    /// UUID in its usual form.
    pub uuid: String,
    /// Whose it is; absent on what is not ours.
    pub mark: Option<Mark>,
    /// How its processor is run.
    pub accelerator: Accelerator,
    /// QEMU's machine: `q35` when wanted, `pc-q35-10.0` or so when read.
    pub machine: String,
    /// libvirt's word for the architecture.
    pub arch: String,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Number of processors.
    pub vcpus: u32,
    /// What they look like.
    pub cpu: Cpu,
    /// A kernel to boot instead of a disk.
    pub kernel: Option<Kernel>,
    /// Disks with our alias.
    pub disks: Vec<Disk>,
    /// Interfaces with our alias.
    pub interfaces: Vec<Interface>,
    /// Log file of the serial console; empty for a console without one, absent without a console.
    pub console_log: Option<String>,
    /// Whether there is a guest agent's channel.
    pub guest_agent: bool,
}

/// How a domain's processor is run: libvirt's domain type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// `kvm`.
    Kvm,
    /// `qemu`: QEMU emulates.
    Emulation,
    /// `test`: libvirt's own test driver, which runs nothing.
    Test,
}

impl Accelerator {
    /// libvirt's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Emulation => "qemu",
            Accelerator::Test => "test",
        }
    }
}

/// What a processor looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// The host's, by name and features.
    HostModel,
    /// The host's as it is.
    HostPassthrough,
    /// All that the accelerator can do.
    Maximum,
    /// A model by libvirt's name.
    Named(String),
}

/// A kernel that QEMU loads itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// File.
    pub kernel: String,
    /// File of the initial RAM disk.
    pub initrd: Option<String>,
    /// Command line.
    pub command_line: Option<String>,
}

/// A disk, with alias `ua-disk-<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Name in the manifest.
    pub name: String,
    /// File.
    pub file: String,
    /// Format of the file, never probed.
    pub format: DiskFormat,
    /// Target, such as `vda`.
    pub target: String,
    /// Place among the boot devices, from 1.
    pub boot_order: Option<u32>,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// Format of a disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// Bytes as they are.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl DiskFormat {
    /// libvirt's word.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        }
    }
}

/// An interface, with alias `ua-nic-<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name in the manifest.
    pub name: String,
    /// Hardware address in lower case.
    pub mac: String,
    /// What it is connected to.
    pub kind: InterfaceKind,
}

/// What an interface is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// QEMU's user network.
    User,
}

/// What a domain's XML tells beyond what we own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every file that it names: disks of any owner with their backing chains, kernel and initrd.
    pub files: Vec<String>,
    /// All disks, of any owner.
    pub disks: Vec<Chain>,
    /// Those of its disks that are qcow2, and may lie over others.
    pub layered: Vec<String>,
    /// Whether the guest agent's channel is connected.
    pub agent_connected: bool,
    /// The serial console's terminal.
    pub console: Option<String>,
}

/// A disk's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Target, such as `vda`.
    pub target: String,
    /// The file that is written to; empty for an empty drive.
    pub file: String,
    /// What lies below it, as far as the XML tells (that of a domain that is off tells nothing).
    pub below: Vec<String>,
}

/// Whether a device is told where on the bus it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Where the definition has it.
    AsDefined,
    /// Wherever there is room.
    Free,
}

impl Domain {
    /// XML of a new domain: equal values give equal text.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for characters that XML cannot carry.
    pub fn render(&self) -> Result<String, Error> {
        let mut tree = Tree::parse(domain_edit::SKELETON)?;
        domain_edit::spare_ports(&mut tree, self)?;
        domain_edit::put(&mut tree, self)?;
        tree.write()
    }

    /// Reads what we own.
    ///
    /// # Errors
    /// When it is not libvirt's XML of a domain.
    pub fn parse(xml: &str) -> Result<Domain, Error> {
        domain_read::domain(&Tree::parse(xml)?)
    }

    /// A domain's inactive XML with our parts brought to `self`; all else survives.
    ///
    /// # Errors
    /// As [`Domain::parse`] and [`Domain::render`].
    pub fn edit(&self, inactive_xml: &str) -> Result<String, Error> {
        let mut tree = Tree::parse(inactive_xml)?;
        domain_edit::put(&mut tree, self)?;
        tree.write()
    }
}

/// The mark in a domain's XML.
///
/// # Errors
/// When it is not XML.
pub fn mark_of(xml: &str) -> Result<Option<Mark>, Error> {
    Ok(mark::of(&Tree::parse(xml)?))
}

/// A file that was merged into the one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file that is gone.
    pub overlay: String,
    /// The file that holds all now.
    pub below: String,
    /// Its format.
    pub format: DiskFormat,
}

/// A domain's inactive XML with each disk off files that were merged, when it names any; all else survives.
///
/// # Errors
/// When it is not XML, or a path cannot be carried by it.
pub fn without_merged(inactive_xml: &str, merged: &[Merged]) -> Result<Option<String>, Error> {
    let mut tree = Tree::parse(inactive_xml)?;
    let top = tree.top;
    Ok(if domain_edit::take_off(&mut tree, top, merged)? { Some(tree.write()?) } else { None })
}

/// What a domain's XML tells beyond what we own.
///
/// # Errors
/// When it is not XML.
pub fn facts(xml: &str) -> Result<Facts, Error> {
    Ok(domain_read::facts(&Tree::parse(xml)?))
}

/// What we own of a domain and what else its XML tells, from one reading of it.
///
/// # Errors
/// As [`Domain::parse`].
pub fn domain_and_facts(xml: &str) -> Result<(Domain, Facts), Error> {
    let tree = Tree::parse(xml)?;
    Ok((domain_read::domain(&tree)?, domain_read::facts(&tree)))
}

/// Our disk of that name in a domain's XML, as a document of its own for attaching or detaching it.
///
/// # Errors
/// When it is not XML, or there is no such disk.
pub fn disk_device(xml: &str, name: &str, address: Address) -> Result<String, Error> {
    let mut tree = Tree::parse(xml)?;
    let found = domain_read::own_devices(&tree, "disk", domain_read::DISK_ALIAS).find(|(_, of)| of == name);
    let (node, _) = found.ok_or(Error::Missing("the disk"))?;
    if let (Address::Free, Some(old)) = (address, tree.child(node, "address")) {
        tree.remove(old)?;
    }
    tree.write_node(node)
}

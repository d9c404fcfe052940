//! In which fields of the manifest two domains differ, in words for users. Pure.

use crds::quantity;
use libvirt_xml::{Accelerator, Cpu, Disk, Domain, Interface, InterfaceKind, Kernel};
use std::collections::BTreeSet;

/// One field in which two domains differ.
pub struct Difference {
    /// Path of the field in the manifest; a list's items by their names.
    pub field: String,
    /// Name of the disk that it is about.
    pub disk: Option<String>,
    /// One side.
    pub current: String,
    /// The other.
    pub desired: String,
}

/// All fields in which they differ, in the order of the manifest.
pub fn differences(current: &Domain, desired: &Domain) -> Vec<Difference> {
    let field = |name: &str, tell: fn(&Domain) -> String| {
        let (current, desired) = (tell(current), tell(desired));
        (current != desired).then(|| Difference { field: name.into(), disk: None, current, desired })
    };
    let fields = [
        field("spec.cpu.cores", |d| d.vcpus.to_string()),
        field("spec.cpu.model", |d| model(&d.cpu)),
        field("spec.memory.size", |d| quantity::from_bytes(d.memory_kib * 1024).0),
        field("spec.accelerator", |d| accelerator(d.accelerator)),
        field("spec.kernelBoot", |d| d.kernel.as_ref().map_or_else(none, kernel)),
        field("spec.guestAgent", |d| if d.guest_agent { "on".into() } else { none() }),
    ];
    let of_disks = named(&current.disks, &desired.disks, |d| &d.name).into_iter().filter_map(|(name, old, new)| {
        let tell = |disk: Option<&Disk>| disk.map_or_else(none, self::disk);
        (old != new).then(|| Difference {
            field: format!("spec.disks[{name}]"),
            current: tell(old),
            desired: tell(new),
            disk: Some(name),
        })
    });
    let of_nics = named(&current.interfaces, &desired.interfaces, |n| &n.name);
    let of_nics = of_nics.into_iter().filter_map(|(name, old, new)| {
        let tell = |nic: Option<&Interface>| nic.map_or_else(none, interface);
        (old != new).then(|| Difference {
            field: format!("spec.interfaces[{name}]"),
            current: tell(old),
            desired: tell(new),
            disk: None,
        })
    });
    fields.into_iter().flatten().chain(of_disks).chain(of_nics).collect()
}

/// The things of both sides by name, in the order of the names.
fn named<'a, T>(
    left: &'a [T],
    right: &'a [T],
    name: impl Fn(&T) -> &String,
) -> Vec<(String, Option<&'a T>, Option<&'a T>)> {
    let names: BTreeSet<String> = left.iter().chain(right).map(|item| name(item).clone()).collect();
    let of = |side: &'a [T], wanted: &String| side.iter().find(|item| name(item) == wanted);
    names.into_iter().map(|wanted| (wanted.clone(), of(left, &wanted), of(right, &wanted))).collect()
}

fn none() -> String {
    "none".into()
}

fn model(cpu: &Cpu) -> String {
    match cpu {
        Cpu::HostModel => "HostModel".into(),
        Cpu::HostPassthrough => "HostPassthrough".into(),
        Cpu::Maximum => "Maximum".into(),
        Cpu::Named(name) => name.clone(),
    }
}

fn accelerator(accelerator: Accelerator) -> String {
    match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Emulation => "Emulation",
        Accelerator::Test => "Test",
    }
    .into()
}

fn kernel(kernel: &Kernel) -> String {
    let Kernel { kernel, initrd, command_line } = kernel;
    let rest = [initrd, command_line].into_iter().flatten().map(|part| format!(" {part}"));
    std::iter::once(kernel.clone()).chain(rest).collect()
}

fn disk(disk: &Disk) -> String {
    let order = disk.boot_order.map(|order| format!(", bootOrder {order}")).unwrap_or_default();
    let access = if disk.read_only { ", readOnly" } else { "" };
    format!("{} ({}{order}{access})", disk.file, disk.format.as_str())
}

fn interface(nic: &Interface) -> String {
    match nic.kind {
        InterfaceKind::User => format!("user, {}", nic.mac),
    }
}

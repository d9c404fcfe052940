//! Writes what we own of a domain into a tree, and nothing else.

use crate::domain::{Cpu, Disk, Domain, Interface, InterfaceKind, Kernel, Merged};
use crate::domain_read::{self as read, AGENT_CHANNEL, DISK_ALIAS, NIC_ALIAS};
use crate::tree::Tree;
use crate::{Error, mark};
use xot::Node;

/// A new domain before our parts are put in. `on_*`: what happens after a stop is our decision, not QEMU's.
pub(crate) const SKELETON: &str = "<domain>\
    <name/><uuid/><memory unit='KiB'/><currentMemory unit='KiB'/><vcpu/>\
    <os><type>hvm</type></os>\
    <features><acpi/><apic/></features>\
    <clock offset='utc'/>\
    <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\
    <devices><controller type='usb' model='none'/><memballoon model='virtio'/></devices>\
    </domain>";

/// A root port takes one device. Ports that are free when the guest starts are what disks can be attached to while it runs.
const SPARE_PORTS: usize = 14;
/// Balloon and serial bus.
const OTHER_DEVICES: usize = 2;

pub(crate) fn spare_ports(tree: &mut Tree, want: &Domain) -> Result<(), Error> {
    let ports = SPARE_PORTS + OTHER_DEVICES + want.disks.len() + want.interfaces.len();
    let devices = tree.child_or_new(tree.top, "devices")?;
    // libvirt refuses root ports unless the root itself is written too.
    tree.append(devices, "controller", &[("type", "pci"), ("index", "0"), ("model", "pcie-root")])?;
    for index in 1..=ports {
        tree.append(
            devices,
            "controller",
            &[("type", "pci"), ("index", &index.to_string()), ("model", "pcie-root-port")],
        )?;
    }
    Ok(())
}

/// Brings our parts of the tree to `want`.
pub(crate) fn put(tree: &mut Tree, want: &Domain) -> Result<(), Error> {
    let top = tree.top;
    tree.set_attribute(top, "type", want.accelerator.as_str())?;
    for (name, value) in [("name", &want.name), ("uuid", &want.uuid), ("vcpu", &want.vcpus.to_string())] {
        let node = tree.child_or_new(top, name)?;
        tree.set_text(node, value)?;
    }
    mark::set(tree, want.mark.as_ref())?;
    for name in ["memory", "currentMemory"] {
        let node = tree.child_or_new(top, name)?;
        tree.set_attribute(node, "unit", "KiB")?;
        tree.set_text(node, &want.memory_kib.to_string())?;
    }
    put_os(tree, want)?;
    put_cpu(tree, &want.cpu)?;
    let devices = tree.child_or_new(top, "devices")?;
    put_disks(tree, devices, &want.disks)?;
    put_interfaces(tree, devices, &want.interfaces)?;
    put_console(tree, devices, want.console_log.as_deref())?;
    put_agent(tree, devices, want.guest_agent)
}

fn put_os(tree: &mut Tree, want: &Domain) -> Result<(), Error> {
    let os = tree.child_or_new(tree.top, "os")?;
    let os_type = tree.child_or_new(os, "type")?;
    tree.set_attribute(os_type, "arch", &want.arch)?;
    if !want.machine.is_empty() {
        tree.set_attribute(os_type, "machine", &want.machine)?;
    }
    let Kernel { kernel, initrd, command_line } =
        want.kernel.clone().unwrap_or(Kernel { kernel: String::new(), initrd: None, command_line: None });
    let kernel = Some(kernel).filter(|kernel| !kernel.is_empty());
    for (name, value) in [("kernel", kernel), ("initrd", initrd), ("cmdline", command_line)] {
        put_text(tree, os, name, value.as_deref())?;
    }
    // libvirt adds <boot dev='hd'/> where no device has an order, and refuses both together.
    if want.disks.iter().any(|disk| disk.boot_order.is_some()) {
        let old: Vec<Node> = tree.children(os, "boot").collect();
        old.into_iter().try_for_each(|node| tree.remove(node))?;
    }
    Ok(())
}

fn put_text(tree: &mut Tree, parent: Node, name: &str, value: Option<&str>) -> Result<(), Error> {
    match (value, tree.child(parent, name)) {
        (Some(value), _) => {
            let node = tree.child_or_new(parent, name)?;
            tree.set_text(node, value)
        }
        (None, Some(node)) => tree.remove(node),
        (None, None) => Ok(()),
    }
}

/// Leaves an element that says the same: libvirt has filled in details there.
fn put_cpu(tree: &mut Tree, want: &Cpu) -> Result<(), Error> {
    let old = tree.child(tree.top, "cpu");
    if old.is_some() && read::cpu(tree) == *want {
        return Ok(());
    }
    if let Some(old) = old {
        tree.remove(old)?;
    }
    let mode = match want {
        Cpu::HostModel => "host-model",
        Cpu::HostPassthrough => "host-passthrough",
        Cpu::Maximum => "maximum",
        Cpu::Named(name) if name.is_empty() => return Ok(()),
        Cpu::Named(name) => {
            let cpu = tree.append(tree.top, "cpu", &[("mode", "custom"), ("match", "exact"), ("check", "none")])?;
            let model = tree.append(cpu, "model", &[("fallback", "forbid")])?;
            return tree.set_text(model, name);
        }
    };
    tree.append(tree.top, "cpu", &[("mode", mode)]).map(|_| ())
}

fn put_disks(tree: &mut Tree, devices: Node, want: &[Disk]) -> Result<(), Error> {
    let old: Vec<(Node, String)> = read::own_devices(tree, "disk", DISK_ALIAS).collect();
    for (node, name) in &old {
        if !want.iter().any(|disk| disk.name == *name) {
            tree.remove(*node)?;
        }
    }
    for disk in want {
        let node = match old.iter().find(|(_, name)| *name == disk.name) {
            Some((node, _)) => *node,
            None => new_disk(tree, devices, disk)?,
        };
        put_disk(tree, node, disk)?;
    }
    Ok(())
}

fn new_disk(tree: &mut Tree, devices: Node, disk: &Disk) -> Result<Node, Error> {
    let node = tree.append(devices, "disk", &[("type", "file"), ("device", "disk")])?;
    // A full file system pauses the guest instead of giving it errors it may not survive.
    tree.append(node, "driver", &[("name", "qemu"), ("error_policy", "stop"), ("discard", "unmap")])?;
    tree.append(node, "source", &[])?;
    tree.append(node, "target", &[("dev", &disk.target), ("bus", "virtio")])?;
    tree.append(node, "alias", &[("name", &format!("{DISK_ALIAS}{}", disk.name))])?;
    Ok(node)
}

fn put_disk(tree: &mut Tree, node: Node, disk: &Disk) -> Result<(), Error> {
    let driver = tree.child_or_new(node, "driver")?;
    tree.set_attribute(driver, "type", disk.format.as_str())?;
    let source = tree.child_or_new(node, "source")?;
    if tree.attribute(source, "file") != Some(&disk.file) {
        tree.set_attribute(source, "file", &disk.file)?;
        // What libvirt knew of the old file's chain is wrong for the new one.
        if let Some(chain) = tree.child(node, "backingStore") {
            tree.remove(chain)?;
        }
    }
    match (disk.boot_order, tree.child(node, "boot")) {
        (Some(order), _) => {
            let boot = tree.child_or_new(node, "boot")?;
            tree.set_attribute(boot, "order", &order.to_string())?;
        }
        (None, Some(boot)) => tree.remove(boot)?,
        (None, None) => {}
    }
    match (disk.read_only, tree.child(node, "readonly")) {
        (true, None) => tree.append(node, "readonly", &[]).map(|_| ()),
        (false, Some(old)) => tree.remove(old),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

/// Puts disks that are on a merged file onto the one below, and drops what libvirt noted of chains with it: it reads them anew from the
/// files' headers. Gives whether anything was changed.
pub(crate) fn take_off(tree: &mut Tree, domain: Node, merged: &[Merged]) -> Result<bool, Error> {
    let devices = tree.child_or_new(domain, "devices")?;
    let disks: Vec<Node> = tree.children(devices, "disk").collect();
    let mut changed = false;
    for disk in disks {
        let names = |tree: &Tree, node: Node, path: &str| {
            tree.descendants(node, "source").any(|source| tree.attribute(source, "file") == Some(path))
        };
        for Merged { overlay, below, format } in merged {
            if !names(tree, disk, overlay) {
                continue;
            }
            changed = true;
            let source = tree.child_or_new(disk, "source")?;
            if tree.attribute(source, "file") == Some(overlay) {
                tree.set_attribute(source, "file", below)?;
                let driver = tree.child_or_new(disk, "driver")?;
                tree.set_attribute(driver, "type", format.as_str())?;
            }
            if let Some(chain) = tree.child(disk, "backingStore") {
                tree.remove(chain)?;
            }
        }
    }
    Ok(changed)
}

fn put_interfaces(tree: &mut Tree, devices: Node, want: &[Interface]) -> Result<(), Error> {
    let old: Vec<(Node, String)> = read::own_devices(tree, "interface", NIC_ALIAS).collect();
    for (node, name) in &old {
        if !want.iter().any(|nic| nic.name == *name) {
            tree.remove(*node)?;
        }
    }
    for nic in want {
        let node = match old.iter().find(|(_, name)| *name == nic.name) {
            Some((node, _)) => *node,
            None => new_interface(tree, devices, nic)?,
        };
        let mac = tree.child_or_new(node, "mac")?;
        tree.set_attribute(mac, "address", &nic.mac)?;
    }
    Ok(())
}

fn new_interface(tree: &mut Tree, devices: Node, nic: &Interface) -> Result<Node, Error> {
    let kind = match nic.kind {
        InterfaceKind::User => "user",
    };
    let node = tree.append(devices, "interface", &[("type", kind)])?;
    tree.append(node, "model", &[("type", "virtio")])?;
    tree.append(node, "alias", &[("name", &format!("{NIC_ALIAS}{}", nic.name))])?;
    Ok(node)
}

/// A console that is there stays as it is, whoever made it.
fn put_console(tree: &mut Tree, devices: Node, log: Option<&str>) -> Result<(), Error> {
    let (Some(log), None) = (log, read::serial(tree)) else {
        return Ok(());
    };
    let serial = tree.append(devices, "serial", &[("type", "pty")])?;
    tree.append(serial, "log", &[("file", log), ("append", "on")])?;
    tree.append(serial, "target", &[("port", "0")]).map(|_| ())
}

fn put_agent(tree: &mut Tree, devices: Node, wanted: bool) -> Result<(), Error> {
    match (wanted, read::agent_channel(tree)) {
        (true, None) => {
            let channel = tree.append(devices, "channel", &[("type", "unix")])?;
            tree.append(channel, "target", &[("type", "virtio"), ("name", AGENT_CHANNEL)]).map(|_| ())
        }
        (false, Some(old)) => tree.remove(old),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

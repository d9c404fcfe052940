//! Reads what we own of a domain, by our aliases, and facts about the rest.

use crate::domain::{Accelerator, Chain, Cpu, Disk, DiskFormat, Domain, Facts, Interface, InterfaceKind, Kernel};
use crate::tree::Tree;
use crate::{Error, mark};
use xot::Node;

/// Begins the alias of each disk of ours; its name in the manifest follows.
pub const DISK_ALIAS: &str = "ua-disk-";
pub(crate) const NIC_ALIAS: &str = "ua-nic-";
/// Name of the channel that QEMU's guest agent opens.
pub(crate) const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

pub(crate) fn domain(tree: &Tree) -> Result<Domain, Error> {
    let top = tree.top;
    let need = |path: &[&str], what| tree.text_at(top, path).ok_or(Error::Missing(what));
    let os_type = tree.at(top, &["os", "type"]).ok_or(Error::Missing("os/type"))?;
    Ok(Domain {
        name: need(&["name"], "name")?,
        uuid: need(&["uuid"], "uuid")?,
        mark: mark::of(tree),
        accelerator: accelerator(tree)?,
        machine: tree.attribute(os_type, "machine").unwrap_or_default().into(),
        arch: tree.attribute(os_type, "arch").unwrap_or_default().into(),
        memory_kib: memory_kib(tree)?,
        vcpus: number("vcpu", &need(&["vcpu"], "vcpu")?)?,
        cpu: cpu(tree),
        kernel: kernel(tree),
        disks: own_devices(tree, "disk", DISK_ALIAS)
            .map(|(node, name)| disk(tree, node, name))
            .collect::<Result<_, _>>()?,
        interfaces: own_devices(tree, "interface", NIC_ALIAS).map(|(node, name)| interface(tree, node, name)).collect(),
        console_log: serial(tree)
            .map(|node| tree.child(node, "log").and_then(|log| owned(tree.attribute(log, "file"))).unwrap_or_default()),
        guest_agent: agent_channel(tree).is_some(),
    })
}

pub(crate) fn facts(tree: &Tree) -> Facts {
    let disks = || tree.at(tree.top, &["devices"]).into_iter().flat_map(|devices| tree.children(devices, "disk"));
    let sources = disks().flat_map(|disk| tree.descendants(disk, "source"));
    let mut files: Vec<String> = sources.filter_map(|source| file_of(tree, source)).collect();
    files.extend(["kernel", "initrd"].iter().filter_map(|name| tree.text_at(tree.top, &["os", name])));
    let is_qcow2 = |disk: &Node| tree.child(*disk, "driver").and_then(|d| tree.attribute(d, "type")) == Some("qcow2");
    let layered =
        disks().filter(is_qcow2).filter_map(|disk| owned(tree.attribute(tree.child(disk, "source")?, "file")));
    Facts {
        layered: layered.collect(),
        files,
        disks: disks().filter_map(|disk| chain(tree, disk)).collect(),
        agent_connected: agent_channel(tree)
            .and_then(|channel| tree.child(channel, "target"))
            .is_some_and(|target| tree.attribute(target, "state") == Some("connected")),
        console: serial(tree)
            .and_then(|node| tree.child(node, "source"))
            .and_then(|source| owned(tree.attribute(source, "path"))),
    }
}

fn file_of(tree: &Tree, source: Node) -> Option<String> {
    owned(tree.attribute(source, "file").or_else(|| tree.attribute(source, "dev")))
}

fn chain(tree: &Tree, disk: Node) -> Option<Chain> {
    let below = tree.child(disk, "backingStore");
    Some(Chain {
        target: owned(tree.attribute(tree.child(disk, "target")?, "dev"))?,
        file: tree.child(disk, "source").and_then(|source| file_of(tree, source)).unwrap_or_default(),
        below: below
            .into_iter()
            .flat_map(|store| tree.descendants(store, "source"))
            .filter_map(|source| file_of(tree, source))
            .collect(),
    })
}

/// Our devices of a kind, with the names in their aliases.
pub(crate) fn own_devices<'a>(
    tree: &'a Tree,
    kind: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = (Node, String)> + 'a {
    let devices = tree.child(tree.top, "devices");
    devices.into_iter().flat_map(move |devices| tree.children(devices, kind)).filter_map(move |node| {
        let alias = tree.attribute(tree.child(node, "alias")?, "name")?;
        Some((node, alias.strip_prefix(prefix)?.to_owned()))
    })
}

pub(crate) fn serial(tree: &Tree) -> Option<Node> {
    tree.at(tree.top, &["devices", "serial"])
}

pub(crate) fn agent_channel(tree: &Tree) -> Option<Node> {
    let devices = tree.child(tree.top, "devices")?;
    tree.children(devices, "channel").find(|channel| {
        tree.child(*channel, "target").is_some_and(|target| tree.attribute(target, "name") == Some(AGENT_CHANNEL))
    })
}

pub(crate) fn cpu(tree: &Tree) -> Cpu {
    let Some(node) = tree.child(tree.top, "cpu") else {
        return Cpu::Named(String::new());
    };
    match tree.attribute(node, "mode") {
        Some("host-model") => Cpu::HostModel,
        Some("host-passthrough") => Cpu::HostPassthrough,
        Some("maximum") => Cpu::Maximum,
        Some(_) | None => Cpu::Named(tree.text_at(node, &["model"]).unwrap_or_default()),
    }
}

fn accelerator(tree: &Tree) -> Result<Accelerator, Error> {
    match tree.attribute(tree.top, "type") {
        Some("kvm") => Ok(Accelerator::Kvm),
        Some("qemu") => Ok(Accelerator::Emulation),
        Some("test") => Ok(Accelerator::Test),
        other => Err(Error::Unexpected { what: "domain type", value: other.unwrap_or_default().into() }),
    }
}

fn memory_kib(tree: &Tree) -> Result<u64, Error> {
    let node = tree.child(tree.top, "memory").ok_or(Error::Missing("memory"))?;
    let value: u64 = number("memory", &tree.text(node))?;
    // libvirt writes KiB; other units only come from files that people wrote.
    let bytes_in_unit = match tree.attribute(node, "unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        other => {
            return Err(Error::Unexpected { what: "unit of memory", value: other.into() });
        }
    };
    Ok(value.saturating_mul(bytes_in_unit).div_ceil(1024))
}

fn kernel(tree: &Tree) -> Option<Kernel> {
    let os = tree.child(tree.top, "os")?;
    Some(Kernel {
        kernel: tree.text_at(os, &["kernel"])?,
        initrd: tree.text_at(os, &["initrd"]),
        command_line: tree.text_at(os, &["cmdline"]),
    })
}

fn disk(tree: &Tree, node: Node, name: String) -> Result<Disk, Error> {
    let get = |child: &str, attribute: &str| {
        tree.child(node, child).and_then(|child| owned(tree.attribute(child, attribute)))
    };
    let order = get("boot", "order");
    Ok(Disk {
        name,
        file: get("source", "file").or_else(|| get("source", "dev")).unwrap_or_default(),
        format: match get("driver", "type").as_deref() {
            Some("qcow2") => DiskFormat::Qcow2,
            Some("raw") | None => DiskFormat::Raw,
            Some(other) => {
                return Err(Error::Unexpected { what: "format of a disk", value: other.into() });
            }
        },
        target: get("target", "dev").ok_or(Error::Missing("disk/target"))?,
        boot_order: order.map(|order| number("boot order", &order)).transpose()?,
        read_only: tree.child(node, "readonly").is_some(),
    })
}

fn interface(tree: &Tree, node: Node, name: String) -> Interface {
    let mac = tree.child(node, "mac").and_then(|mac| tree.attribute(mac, "address")).unwrap_or_default();
    Interface { name, mac: mac.to_lowercase(), kind: InterfaceKind::User }
}

fn number<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Unexpected { what, value: text.into() })
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

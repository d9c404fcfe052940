//! From a manifest and what it names to what is wanted: after this nobody reads the raw spec. Pure.

use super::power::{Grace, Power, Restart};
use crate::names;
use crds::storage_volume::Format;
use crds::virtual_machine::{self as api, VirtualMachine};
use crds::{RESTARTED_AT_ANNOTATION, quantity};
use jiff::SignedDuration;
use libvirt_xml::{Accelerator, Cpu, DiskFormat, Interface, InterfaceKind, Kernel, Owner};
use std::collections::BTreeMap;

/// What the shell found of the things that the manifest names, and of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// UID of the cluster.
    pub cluster: String,
    /// The host's architecture in libvirt's words.
    pub arch: String,
    /// Whether the host has KVM.
    pub kvm: bool,
    /// Whether the host's administrator wants emulation only.
    pub force_emulation: bool,
    /// Directory of console logs.
    pub console_log_dir: String,
}

/// A volume that the manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// It can be used.
    Ready {
        /// Its file.
        path: String,
        /// Format of the file.
        format: Format,
        /// Whether its pool holds the same bytes on every host.
        shared: bool,
        /// Whether this machine holds the one writer's place.
        claimed: bool,
        /// In which fields its disk's template says otherwise.
        differs: Vec<&'static str>,
    },
    /// It cannot be used yet; the words say why.
    NotReady(String),
    /// It cannot be made as its manifest stands; the words say why.
    Stalled(String),
}

/// What is wanted of one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Whose domain it is.
    pub owner: Owner,
    /// The domain's name.
    pub name: String,
    /// Whether the guest should run.
    pub power: Power,
    /// What happens after it stopped unasked.
    pub restart: Restart,
    /// Value of the restart annotation.
    pub restarted_at: Option<String>,
    /// How it is shut down.
    pub shutdown: Grace,
    /// Whether libvirt may start it with the host.
    pub autostart: bool,
    /// The domain's own parts, or which volumes they wait for.
    pub shape: Result<Shape, Waiting>,
    /// Volumes of which a template says otherwise, as sentences for users.
    pub otherwise: Vec<String>,
}

/// The parts of a domain that the manifest decides; what libvirt or a first definition chooses is not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// libvirt's word for the architecture.
    pub arch: String,
    /// How the guest's processor is run.
    pub accelerator: Accelerator,
    /// Number of processors.
    pub vcpus: u32,
    /// What they look like.
    pub cpu: Cpu,
    /// Memory in KiB, a multiple of 1 MiB (QEMU has no smaller steps).
    pub memory_kib: u64,
    /// A kernel to boot.
    pub kernel: Option<Kernel>,
    /// Disks in the manifest's order.
    pub disks: Vec<DiskShape>,
    /// Interfaces in the manifest's order.
    pub interfaces: Vec<Interface>,
    /// The console's log file.
    pub console_log: String,
    /// Whether there is a guest agent's channel.
    pub guest_agent: bool,
}

/// A disk without what is chosen once and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskShape {
    /// Name in the manifest.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Format of the file, never probed.
    pub format: DiskFormat,
    /// Place among the boot devices.
    pub boot_order: Option<u32>,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// Volumes that are waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting(pub Vec<Waited>);

/// A volume that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Its name.
    pub volume: String,
    /// Why it cannot be used yet.
    pub why: String,
    /// Whether it waits for an edit itself.
    pub stalled: bool,
}

impl Waiting {
    /// Whether somebody must act before all of them are there.
    pub fn is_stalled(&self) -> bool {
        self.0.iter().any(|waited| waited.stalled)
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, Waited { volume, why, .. }) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}volume {volume}: {why}")?;
        }
        Ok(())
    }
}

/// A manifest that this host cannot carry out whatever happens: it waits for an edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// Path of the field.
    pub field: &'static str,
    /// CamelCase word.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// Reads the manifest.
///
/// # Errors
/// [`Invalid`] when no wait would help.
pub fn validate(vm: &VirtualMachine, resolved: &Resolved) -> Result<Desired, Invalid> {
    let namespace = vm.metadata.namespace.clone().unwrap_or_default();
    let name = vm.metadata.name.clone().unwrap_or_default();
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    if ![&namespace, &name].into_iter().all(|part| names::is_label(part)) {
        let message =
            format!("{namespace}/{name} cannot be the name of a domain; use lower case letters, digits and '-'");
        return Err(Invalid { field: "metadata.name", reason: "InvalidName", message });
    }
    let annotations = vm.metadata.annotations.as_ref();
    let mut volumes = Volumes { resolved, waiting: Waiting::default(), shared: false, otherwise: Vec::new() };
    let shape = shape(vm, &mut volumes)?;
    let Volumes { waiting, shared, otherwise, .. } = volumes;
    Ok(Desired {
        name: names::domain(&namespace, &name),
        power: match vm.spec.power_state {
            api::PowerState::Running => Power::On,
            api::PowerState::Stopped => Power::Off,
        },
        restart: match vm.spec.restart_policy {
            api::RestartPolicy::Always => Restart::Always,
            api::RestartPolicy::OnFailure => Restart::OnFailure,
            api::RestartPolicy::Never => Restart::Never,
        },
        restarted_at: annotations.and_then(|a| a.get(RESTARTED_AT_ANNOTATION)).cloned(),
        shutdown: grace(&vm.spec.shutdown),
        // Another host may run what lies on shared storage: only an agent that has read its binding may start that.
        autostart: vm.spec.autostart && !shared,
        shape: if waiting.0.is_empty() { Ok(shape) } else { Err(waiting) },
        otherwise,
        owner: Owner { cluster: resolved.cluster.clone(), namespace, name, uid },
    })
}

/// How the manifest wants its guest shut down.
pub fn grace(shutdown: &api::Shutdown) -> Grace {
    Grace {
        timeout: SignedDuration::from_secs(shutdown.timeout_seconds.into()),
        destroy: match shutdown.on_timeout {
            api::OnTimeout::Destroy => true,
            api::OnTimeout::Wait => false,
        },
    }
}

fn shape(vm: &VirtualMachine, volumes: &mut Volumes) -> Result<Shape, Invalid> {
    let resolved = volumes.resolved;
    let uid = vm.metadata.uid.as_deref().unwrap_or_default();
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let domain = names::domain(vm.metadata.namespace.as_deref().unwrap_or_default(), name);
    let spec = &vm.spec;
    Ok(Shape {
        arch: resolved.arch.clone(),
        accelerator: accelerator(spec.accelerator, resolved)?,
        vcpus: u32::try_from(spec.cpu.cores).unwrap_or(1).max(1),
        cpu: match spec.cpu.model.as_str() {
            "HostModel" => Cpu::HostModel,
            "HostPassthrough" => Cpu::HostPassthrough,
            "Maximum" => Cpu::Maximum,
            model => Cpu::Named(model.into()),
        },
        memory_kib: memory_kib(spec)?,
        kernel: spec.kernel_boot.as_ref().map(|boot| kernel(boot, volumes)).transpose()?,
        disks: spec.disks.iter().filter_map(|disk| volumes.disk(name, disk)).collect(),
        interfaces: spec.interfaces.iter().map(|nic| interface(uid, nic)).collect(),
        console_log: format!("{}/{domain}.log", resolved.console_log_dir),
        guest_agent: spec.guest_agent.is_some(),
    })
}

fn accelerator(wanted: api::Accelerator, resolved: &Resolved) -> Result<Accelerator, Invalid> {
    match wanted {
        _ if resolved.force_emulation => Ok(Accelerator::Emulation),
        api::Accelerator::Emulation => Ok(Accelerator::Emulation),
        api::Accelerator::Auto if resolved.kvm => Ok(Accelerator::Kvm),
        api::Accelerator::Auto => Ok(Accelerator::Emulation),
        api::Accelerator::Kvm if resolved.kvm => Ok(Accelerator::Kvm),
        api::Accelerator::Kvm => Err(Invalid {
            field: "spec.accelerator",
            reason: "AccelerationUnavailable",
            message: "this host has no KVM; use Auto or Emulation, or choose another host in spec.placement".into(),
        }),
    }
}

fn memory_kib(spec: &api::VirtualMachineSpec) -> Result<u64, Invalid> {
    const MIB: u64 = 1 << 20;
    let bytes = quantity::units(&spec.memory.size).ok_or_else(|| Invalid {
        field: "spec.memory.size",
        reason: "InvalidQuantity",
        message: format!("{:?} is not a size; write it as 512Mi or 2Gi", spec.memory.size.0),
    })?;
    Ok(bytes.div_ceil(MIB) * 1024)
}

fn kernel(boot: &api::KernelBoot, volumes: &mut Volumes) -> Result<Kernel, Invalid> {
    Ok(Kernel {
        kernel: volumes.boot_file("spec.kernelBoot.kernel", &boot.kernel)?,
        initrd: boot.initrd.as_ref().map(|file| volumes.boot_file("spec.kernelBoot.initrd", file)).transpose()?,
        command_line: boot.command_line.clone(),
    })
}

fn interface(uid: &str, nic: &api::Interface) -> Interface {
    let api::UserNetwork {} = nic.user;
    Interface {
        name: nic.name.clone(),
        mac: nic.mac_address.clone().unwrap_or_else(|| names::mac(uid, &nic.name)),
        kind: InterfaceKind::User,
    }
}

/// Looks up volumes and gathers those that are not ready.
struct Volumes<'a> {
    resolved: &'a Resolved,
    waiting: Waiting,
    shared: bool,
    otherwise: Vec<String>,
}

impl Volumes<'_> {
    fn disk(&mut self, vm: &str, disk: &api::Disk) -> Option<DiskShape> {
        let volume = names::disk_volume(vm, disk);
        let (path, format, shared, claimed) = self.ready(&volume)?;
        if !disk.read_only && !claimed {
            self.wait(&volume, "another machine writes to it, or the controller has not claimed it yet");
            return None;
        }
        self.shared |= shared && !disk.read_only;
        Some(DiskShape {
            name: disk.name.clone(),
            file: path,
            format: match format {
                Format::Raw => DiskFormat::Raw,
                Format::Qcow2 => DiskFormat::Qcow2,
            },
            boot_order: disk.boot_order.and_then(|order| u32::try_from(order).ok()),
            read_only: disk.read_only,
        })
    }

    /// Path of a volume that QEMU itself reads as it is; empty while it is not ready.
    fn boot_file(&mut self, field: &'static str, file: &api::BootFile) -> Result<String, Invalid> {
        let Some((path, format, _, _)) = self.ready(&file.volume) else {
            return Ok(String::new());
        };
        match format {
            Format::Raw => Ok(path),
            Format::Qcow2 => Err(Invalid {
                field,
                reason: "WrongFormat",
                message: format!("volume {} must have format Raw: QEMU reads a kernel as it is", file.volume),
            }),
        }
    }

    fn ready(&mut self, volume: &str) -> Option<(String, Format, bool, bool)> {
        match self.resolved.volumes.get(volume) {
            Some(Volume::Ready { path, format, shared, claimed, differs }) => {
                if !differs.is_empty() {
                    self.otherwise.push(format!("volume {volume} was made otherwise: {}", differs.join(", ")));
                }
                Some((path.clone(), *format, *shared, *claimed))
            }
            Some(Volume::NotReady(why)) => {
                self.wait(volume, why);
                None
            }
            Some(Volume::Stalled(why)) => {
                self.waiting.0.push(Waited { volume: volume.into(), why: why.clone(), stalled: true });
                None
            }
            None => {
                self.wait(volume, "there is no StorageVolume of this name");
                None
            }
        }
    }

    fn wait(&mut self, volume: &str, why: &str) {
        self.waiting.0.push(Waited { volume: volume.into(), why: why.into(), stalled: false });
    }
}

#[cfg(test)]
mod tests;

//! VirtualMachine: a guest that runs in a host's own libvirtd.

mod status;

pub use status::{
    Apply, DiskStatus, DomainStatus, GuestStatus, InterfaceStatus, MachinePhase, PendingChange, ResourcesStatus,
    SnapshotsStatus, VirtualMachineStatus,
};

use crate::Quantity;
use crate::storage_volume::{Allocation, DeletionPolicy as VolumeDeletionPolicy, Format, Source};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A virtual machine. It runs in libvirtd on one host and goes on running whatever becomes of the agent or the cluster.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "virtfleet.dev",
    version = "v1alpha1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    shortname = "vm",
    shortname = "vms",
    category = "virt",
    namespaced,
    status = "VirtualMachineStatus",
    derive = "PartialEq",
    selectable = ".status.host",
    selectable = ".status.phase",
    validation = Rule::new("!has(self.spec.disks) || self.spec.disks.all(d, !has(d.volumeTemplate) || self.metadata.name.size() + d.name.size() < 63)")
        .message("the name of a disk with a volumeTemplate and metadata.name must be at most 62 characters together: the volume is called <vm>-<disk>"),
    printcolumn(name = "Status", json_path = ".status.phase", type_ = "string"),
    printcolumn(name = "Host", json_path = ".status.host", type_ = "string"),
    printcolumn(name = "IP", json_path = ".status.interfaces[*].addresses[0]", type_ = "string"),
    printcolumn(name = "Cores", json_path = ".status.resources.cores", type_ = "integer"),
    printcolumn(name = "Memory", json_path = ".status.resources.memory", type_ = "string"),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.disks) || self.disks.filter(d, has(d.bootOrder)).map(d, d.bootOrder).all(o, self.disks.exists_one(e, has(e.bootOrder) && e.bootOrder == o))")
    .message("bootOrder must differ from disk to disk")
    .field_path(".disks"))]
pub struct VirtualMachineSpec {
    /// Whether the guest should run.
    #[serde(default)]
    pub power_state: PowerState,
    /// What happens after the guest stopped by itself, crashed or was killed. One that is left off stays so until powerState or the
    /// annotation virtfleet.dev/restartedAt changes.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// Whether libvirt starts the guest when the host starts, while powerState is Running.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Which hosts are allowed. Absent: any. It counts when the machine is placed; afterwards the machine stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How the guest's processors are run. The host's administrator can force Emulation. A change waits for the guest's next start.
    #[serde(default)]
    pub accelerator: Accelerator,
    /// Processors. Absent: one, of the host's model. A change waits for the guest's next start.
    #[serde(default)]
    pub cpu: Cpu,
    /// Memory. A change waits for the guest's next start.
    pub memory: Memory,
    /// The machine's kind. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("machine cannot be changed: the guest's hardware would be another; make another machine")
        .reason(Reason::FieldValueForbidden))]
    pub machine: Machine,
    /// Boot a kernel from volumes instead of from a disk. A change waits for the guest's next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_boot: Option<KernelBoot>,
    /// Disks. One that is added or taken away is attached to or detached from the running guest: unmount it there before you take it
    /// away. Another volume, readOnly or bootOrder of a disk wait for the guest's next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<Disk>,
    /// Network interfaces. A change waits for the guest's next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<Interface>,
    /// A channel for QEMU's guest agent, which tells addresses and names and shuts the guest down. `{}`: the guest has one; absent: none.
    /// A change waits for the guest's next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_agent: Option<GuestAgent>,
    /// How the guest is shut down.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// What becomes of the guest when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whether the guest should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PowerState {
    /// It should run.
    #[default]
    Running,
    /// It should be off: it is shut down as spec.shutdown says.
    Stopped,
}

/// What happens after the guest stopped without being asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// Start it again.
    Always,
    /// Start it again unless it shut itself down.
    #[default]
    OnFailure,
    /// Leave it off.
    Never,
}

/// How the guest's processor is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Accelerator {
    /// KVM where the host has it.
    #[default]
    Auto,
    /// KVM or not at all.
    #[serde(rename = "KVM")]
    Kvm,
    /// QEMU's own emulation.
    Emulation,
}

/// What becomes of the guest when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is shut down and undefined.
    #[default]
    Delete,
    /// It goes on as it is, without Virtfleet's mark, and the files of its template volumes stay.
    Orphan,
}

/// Which hosts are allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Name of the one Host allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Labels that the Host must have, besides its name when `host` is given too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_selector: Option<LabelSelector>,
}

/// Processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Number of virtual processors.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 512))]
    pub cores: i32,
    /// What the guest sees: `HostModel` (the model nearest to the host's that libvirt has a name for), `HostPassthrough` (the host's own),
    /// `Maximum` (all that QEMU can do there), or a model in libvirt's words (`virsh cpu-models x86_64`).
    #[serde(default = "host_model")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][-A-Za-z0-9_.+]*$')")
        .message("model must be HostModel, HostPassthrough, Maximum or a model that libvirt knows, such as Skylake-Server"))]
    pub model: String,
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu { cores: one(), model: host_model() }
    }
}

/// Memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Bytes, such as `2Gi`.
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('16Ti')) <= 0")
        .message("size must be from 16Mi to 16Ti"))]
    pub size: Quantity,
}

/// The machine's kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// QEMU's machine. Its exact version is chosen when the guest is first defined and kept.
    #[serde(default, rename = "type")]
    pub type_: MachineType,
}

/// QEMU's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachineType {
    /// PCI Express, Intel Q35.
    #[default]
    #[serde(rename = "q35")]
    Q35,
}

/// A kernel that QEMU loads itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelBoot {
    /// The kernel: the whole contents of a volume of format Raw.
    pub kernel: BootFile,
    /// The initial RAM disk: the whole contents of a volume of format Raw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<BootFile>,
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub command_line: Option<String>,
}

/// A file that lies in a volume of format Raw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootFile {
    /// Name of a StorageVolume in this namespace.
    #[schemars(length(min = 1, max = 63))]
    pub volume: String,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.volume) != has(self.volumeTemplate)")
    .message(Message::Expression("\"disk \" + self.name + \": exactly one of volume or volumeTemplate must be set\"".into())))]
#[x_kube(validation = Rule::new("has(self.volumeTemplate) == has(oldSelf.volumeTemplate) && (!has(self.volumeTemplate) || self.volumeTemplate == oldSelf.volumeTemplate)")
    .message("volumeTemplate cannot be changed: its volume is made once; grow the StorageVolume <vm>-<disk>, or use another disk name")
    .field_path(".volumeTemplate")
    .reason(Reason::FieldValueForbidden))]
pub struct Disk {
    /// Name of the disk in this machine.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("!format.dns1123Label().validate(self).hasValue()")
        .message("name must be a DNS label: lower case letters, digits and '-'"))]
    pub name: String,
    /// Place among the disks that the firmware tries, from 1; no two disks have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub boot_order: Option<i32>,
    /// Whether the guest may only read. Several machines may read one volume; only one may write.
    #[serde(default)]
    pub read_only: bool,
    /// Name of a StorageVolume in this namespace. Exactly one of this and `volumeTemplate` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub volume: Option<String>,
    /// A StorageVolume of the machine's own, called `<vm>-<disk>`: it is made with the machine and goes with it. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_template: Option<VolumeTemplate>,
}

/// A StorageVolume that is made with its machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeTemplate {
    /// As a StorageVolume's spec, without host: the volume is placed with its machine.
    pub spec: TemplateSpec,
}

/// What a template volume is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.capacity) || has(self.source)")
    .message("capacity is required for a blank volume; only one with a source can take its size from it")
    .field_path(".capacity")
    .reason(Reason::FieldValueRequired))]
#[x_kube(validation = Rule::new("!has(self.source) || self.allocation == 'Thin' || self.format == 'Raw'")
    .message("allocation Full with a source needs format Raw: a qcow2 image takes the space that it has")
    .field_path(".allocation"))]
pub struct TemplateSpec {
    /// Name of the StoragePool.
    #[schemars(length(min = 1, max = 63))]
    pub storage_pool: String,
    /// Size that the guest sees, in bytes, such as `10Gi`. To grow it later, grow spec.capacity of the StorageVolume `<vm>-<disk>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // A rule on quantities within a list costs more than the API server allows.
    #[schemars(extend("minimum" = 1, "pattern" = "^[0-9.]*[1-9][0-9.]*([EPTGMk]|[EPTGMK]i)?$"))]
    pub capacity: Option<Quantity>,
    /// Format of the file.
    #[serde(default)]
    pub format: Format,
    /// When the file's space is taken from the file system.
    #[serde(default)]
    pub allocation: Allocation,
    /// Where the first contents come from. Absent: blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What becomes of the file when the machine is deleted.
    #[serde(default = "delete")]
    pub deletion_policy: VolumeDeletionPolicy,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name of the interface in this machine.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("!format.dns1123Label().validate(self).hasValue()")
        .message("name must be a DNS label: lower case letters, digits and '-'"))]
    pub name: String,
    /// Its hardware address; made from the machine's UID and the interface's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 17))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$') && self != '00:00:00:00:00:00'")
        .message("macAddress must be six pairs of lower case hexadecimal digits, not a group address, such as 52:54:00:12:34:56"))]
    pub mac_address: Option<String>,
    /// QEMU's own network, `{}`: the guest reaches out, nobody reaches it.
    pub user: UserNetwork,
}

/// QEMU's user network; it has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserNetwork {}

/// QEMU's guest agent; it has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestAgent {}

/// How the guest is shut down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// Seconds that the guest has to shut itself down.
    #[serde(default = "two_minutes")]
    #[schemars(range(min = 0, max = 86400))]
    pub timeout_seconds: i32,
    /// What happens to a guest that still runs then.
    #[serde(default)]
    pub on_timeout: OnTimeout,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { timeout_seconds: two_minutes(), on_timeout: OnTimeout::Destroy }
    }
}

/// What happens to a guest that does not shut down in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnTimeout {
    /// Its plug is pulled.
    #[default]
    Destroy,
    /// It is waited for, and asked again.
    Wait,
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}

fn host_model() -> String {
    "HostModel".into()
}

fn two_minutes() -> i32 {
    120
}

fn delete() -> VolumeDeletionPolicy {
    VolumeDeletionPolicy::Delete
}

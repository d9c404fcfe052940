//! StorageVolume: one disk's data, a file in a StoragePool on one host.

pub use crate::storage_pool::DeletionPolicy;
use crate::{Condition, Quantity, Teardown};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A disk's data in a StoragePool: blank, or filled from a source when it is made.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "virtfleet.dev",
    version = "v1alpha1",
    kind = "StorageVolume",
    plural = "storagevolumes",
    shortname = "vol",
    shortname = "vols",
    category = "virt",
    namespaced,
    status = "StorageVolumeStatus",
    derive = "PartialEq",
    selectable = ".status.host",
    selectable = ".spec.storagePool",
    printcolumn(name = "Status", json_path = ".status.phase", type_ = "string"),
    printcolumn(name = "Pool", json_path = ".spec.storagePool", type_ = "string"),
    printcolumn(name = "Host", json_path = ".status.host", type_ = "string"),
    printcolumn(name = "Capacity", json_path = ".status.capacity", type_ = "string"),
    printcolumn(name = "Allocated", json_path = ".status.allocation", type_ = "string"),
    printcolumn(name = "Used-By", json_path = ".status.usedBy", type_ = "string"),
    printcolumn(name = "Progress", json_path = ".status.progress", type_ = "string", priority = 1),
    printcolumn(name = "Age", json_path = ".metadata.creationTimestamp", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.capacity) || has(self.source)")
    .message("capacity is required for a blank volume; only one with a source can take its size from it")
    .field_path(".capacity")
    .reason(Reason::FieldValueRequired))]
#[x_kube(validation = Rule::new("has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)")
    .message("source cannot be changed: the volume is filled once, when it is made; make another volume")
    .field_path(".source")
    .reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!oldSelf.hasValue() || (has(oldSelf.value().host) == has(self.host) && (!has(self.host) || self.host == oldSelf.value().host))")
    .message("host cannot be changed: the data lies there; make another volume")
    .field_path(".host")
    .reason(Reason::FieldValueForbidden)
    .optional_old_self(true))]
#[x_kube(validation = Rule::new("!has(oldSelf.capacity) || (has(self.capacity) && quantity(string(self.capacity)).compareTo(quantity(string(oldSelf.capacity))) >= 0)")
    .message("capacity may only grow: what lies at the end would be lost; make a smaller volume and copy")
    .field_path(".capacity")
    .reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.source) || self.allocation == 'Thin' || self.format == 'Raw'")
    .message("allocation Full with a source needs format Raw: a qcow2 image takes the space that it has")
    .field_path(".allocation"))]
pub struct StorageVolumeSpec {
    /// Name of the StoragePool. Cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("storagePool cannot be changed: the data lies there; make another volume")
        .reason(Reason::FieldValueForbidden))]
    pub storage_pool: String,
    /// Name of the Host that keeps the data. Without it the volume waits for its first VirtualMachine and is placed with it. Cannot be
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Size that a guest sees, in bytes, such as `10Gi`. Required for a blank volume; with a source, the image's own size when absent, and never
    /// smaller than it. It may grow: a running guest sees the new size at once, and has to grow its partition and file system itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))").message("capacity must be more than 0"))]
    pub capacity: Option<Quantity>,
    /// Format of the file. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("format cannot be changed; make another volume")
        .reason(Reason::FieldValueForbidden))]
    pub format: Format,
    /// When the file's space is taken from the file system. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("allocation cannot be changed; make another volume")
        .reason(Reason::FieldValueForbidden))]
    pub allocation: Allocation,
    /// Where the first contents come from. Absent: blank. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What becomes of the file when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Format of a volume's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// The guest's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format, version 3.
    #[default]
    Qcow2,
}

impl Format {
    /// The file name's extension, which is also libvirt's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }
}

/// When the space is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Allocation {
    /// As the guest writes.
    #[default]
    Thin,
    /// All at once. With a source, only in format Raw.
    Full,
}

/// First contents of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Download from an HTTP server.
    pub http: HttpSource,
}

/// An image on an HTTP server. Private and local addresses are refused unless the host's administrator allows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.checksum) != self.insecure")
    .message("give a checksum (sha256:…), or insecure: true to do without one; not both")
    .field_path(".checksum"))]
#[x_kube(validation = Rule::new("!has(self.secret) || self.url.startsWith('https://')")
    .message("secret needs a url that begins with https://: a password never travels in clear")
    .field_path(".secret"))]
#[x_kube(validation = Rule::new("!has(self.caBundle) || self.url.startsWith('https://')")
    .message("caBundle needs a url that begins with https://: without TLS no certificate is shown")
    .field_path(".caBundle"))]
pub struct HttpSource {
    /// Address, `http://…` or `https://…`, without user or password in it.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@]+([/?#].*)?$')")
        .message("url must be http://… or https://… with a host, and without user or password"))]
    pub url: String,
    /// SHA-256 of the file as it is served: `sha256:` and 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')")
        .message("checksum must be sha256: and 64 lower case hexadecimal digits"))]
    pub checksum: Option<String>,
    /// Take whatever the server sends, unchecked. Exactly one of this and `checksum` is given.
    #[serde(default)]
    pub insecure: bool,
    /// Name of a Secret in the volume's namespace with what the server demands: key `token` (sent as Bearer), or keys `username` and
    /// `password` (sent as Basic). Its type is Opaque or kubernetes.io/basic-auth. Only with an `https://` url; where a redirection leads to
    /// another server it is not sent. It may be made or corrected later: it is looked at again every 30 s until the image is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("secret must be the name of a Secret"))]
    pub secret: Option<String>,
    /// Certificates of authorities, PEM, that are trusted for this download besides those that the host trusts anyway. Only with an
    /// `https://` url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN CERTIFICATE-----')")
        .message("caBundle must begin with -----BEGIN CERTIFICATE-----: give certificates in PEM, without words before them"))]
    pub ca_bundle: Option<String>,
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePhase {
    /// Not made yet.
    Pending,
    /// Its contents are coming.
    Importing,
    /// A machine can use it.
    Ready,
    /// A machine can use it, and it is to grow.
    Resizing,
    /// It cannot be made; conditions say why.
    Failed,
    /// Its file is gone from the host.
    Lost,
    /// It is being deleted.
    Terminating,
    /// Its host does not answer.
    Unknown,
}

/// What is so on the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageVolumeStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the volume is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<VolumePhase>,
    /// How much of an import is done, such as `42%`, or what was received, such as `812 MiB`, when the server does not tell the
    /// size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Host that keeps the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The file on that host. With external snapshots it is the one that the volume began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The file's format, when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Bytes that a guest sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
    /// Bytes that the file takes, rounded; updated with other changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Quantity>,
    /// Names of the VirtualMachines that name this volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub used_by: Vec<String>,
    /// The one VirtualMachine that may write to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<Claim>,
    /// The deletion under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<Teardown>,
    /// Ready, Reconciling, Stalled, Scheduled, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The machine that holds a volume's one writer's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Name of the VirtualMachine, in the volume's namespace.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

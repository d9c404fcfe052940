//! The bed: a real Kubernetes control plane and real libvirt hosts on one machine, without containers. Does I/O.
//!
//! [`up`] starts one daemon ([`keeper`]) that owns every program of the bed; when it ends, everything ends with it.

pub mod bench;
pub mod booted;
pub mod control_plane;
pub mod demo;
pub mod disks;
pub mod down;
pub mod environment;
pub mod host;
pub mod images;
pub mod in_guest;
pub mod install;
pub mod keeper;
pub mod net;
pub mod node;
pub mod pki;
pub mod program;
pub mod run;
pub mod secure_images;
pub mod shell;
pub mod story;
pub mod up;

/// What goes wrong here is read by a person.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// See [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names of the bed's hosts.
pub const HOSTS: [&str; 2] = ["node-a", "node-b"];

//! libvirt's XML as typed values and back. No I/O; does not link libvirt.
//!
//! A [`Domain`] holds exactly what we own of a domain. It is written by editing a tree in which everything else survives, and read by
//! our own aliases, so that a look at what we wrote gives what we wanted.

pub mod capabilities;
pub mod domain;
mod domain_edit;
mod domain_read;
pub mod mark;
pub mod pool;
mod read_only;
pub mod snapshot;
mod tree;

pub use capabilities::{Capabilities, DomainCapabilities};
pub use domain::{
    Accelerator, Address, Chain, Cpu, Disk, DiskFormat, Domain, Facts, Interface, InterfaceKind, Kernel, Merged,
    disk_device, domain_and_facts, facts, mark_of, without_merged,
};
pub use domain_read::DISK_ALIAS;
pub use mark::{Mark, Owner, Run};
pub use pool::Pool;

/// Why XML could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no well-formed XML, or too large, or declares a document type.
    #[error("cannot read XML: {0}")]
    Unreadable(String),
    /// Something that libvirt always writes is missing.
    #[error("the XML lacks {0}")]
    Missing(&'static str),
    /// A value is not what libvirt writes there.
    #[error("{what} is {value:?}, which is not understood")]
    Unexpected {
        /// Which value.
        what: &'static str,
        /// What it was.
        value: String,
    },
    /// A text holds a character that XML 1.0 cannot carry.
    #[error("{0:?} holds a character that XML cannot carry")]
    Unwritable(String),
    /// The XML library refused an edit.
    #[error("cannot edit XML")]
    Edit(#[source] xot::Error),
}

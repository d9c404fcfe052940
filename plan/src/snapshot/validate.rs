//! From a manifest to what is wanted. Pure.

use super::Reason;
use crate::names;
use crds::snapshot::{Method, Snapshot};

/// What the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the snapshot in libvirt: that of its object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
    /// Where it is kept.
    pub method: Method,
    /// Which disks.
    pub disks: Selection,
}

/// Which of the domain's disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All that the guest can write to.
    All,
    /// These.
    Only(Vec<String>),
    /// All that the guest can write to but these.
    Without(Vec<String>),
}

/// Reads the manifest.
///
/// # Errors
/// What is wrong with it.
pub fn validate(snapshot: &Snapshot) -> Result<Desired, Reason> {
    let name = snapshot.metadata.name.clone().unwrap_or_default();
    let uid = snapshot.metadata.uid.clone().unwrap_or_default();
    if !names::is_label(&name) || uid.contains(['/', '.']) {
        return Err(Reason::new("InvalidName", format!("{name} cannot be part of a file's name")));
    }
    Ok(Desired {
        name,
        uid,
        method: snapshot.spec.method,
        disks: match &snapshot.spec.disks {
            None => Selection::All,
            Some(disks) if disks.include.is_empty() => Selection::Without(disks.exclude.clone()),
            Some(disks) => Selection::Only(disks.include.clone()),
        },
    })
}

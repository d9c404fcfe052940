//! What a host can do, from libvirt's capabilities.

use crate::tree::Tree;
use crate::{Accelerator, Error};

/// From `virConnectGetCapabilities`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The host's architecture.
    pub arch: String,
    /// The host processor's model.
    pub cpu_model: Option<String>,
    /// How guests of that architecture can be run.
    pub accelerators: Vec<Accelerator>,
    /// Architecture of the guests that can be run: the host's where it has any, else the first.
    pub guest_arch: String,
    /// Whether external snapshots can be reverted and deleted.
    pub external_snapshot: bool,
}

impl Capabilities {
    /// Reads them.
    ///
    /// # Errors
    /// When it is not libvirt's XML of capabilities.
    pub fn parse(xml: &str) -> Result<Capabilities, Error> {
        let tree = Tree::parse(xml)?;
        let top = tree.top;
        let arch = tree.text_at(top, &["host", "cpu", "arch"]).ok_or(Error::Missing("host/cpu/arch"))?;
        let guests: Vec<_> =
            tree.children(top, "guest").filter_map(|guest| Some((guest, tree.child(guest, "arch")?))).collect();
        let own = guests.iter().find(|(_, node)| tree.attribute(*node, "name") == Some(&arch)).or(guests.first());
        let words = own.map(|(_, node)| {
            tree.children(*node, "domain").filter_map(|d| tree.attribute(d, "type")).collect::<Vec<_>>()
        });
        let offers =
            |accelerator: &Accelerator| words.as_ref().is_some_and(|words| words.contains(&accelerator.as_str()));
        Ok(Capabilities {
            cpu_model: tree.text_at(top, &["host", "cpu", "model"]),
            accelerators: [Accelerator::Kvm, Accelerator::Emulation, Accelerator::Test]
                .into_iter()
                .filter(offers)
                .collect(),
            guest_arch: own.and_then(|(_, node)| tree.attribute(*node, "name")).unwrap_or(&arch).to_owned(),
            external_snapshot: own
                .is_some_and(|(guest, _)| tree.at(*guest, &["features", "externalSnapshot"]).is_some()),
            arch,
        })
    }
}

/// From `virConnectGetDomainCapabilities`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainCapabilities {
    /// The machine that the asked-for name stands for, such as `pc-q35-10.0`.
    pub machine: Option<String>,
    /// Largest number of processors.
    pub max_vcpus: Option<u32>,
}

impl DomainCapabilities {
    /// Reads them.
    ///
    /// # Errors
    /// When it is not XML.
    pub fn parse(xml: &str) -> Result<DomainCapabilities, Error> {
        let tree = Tree::parse(xml)?;
        let vcpu = tree.child(tree.top, "vcpu").and_then(|vcpu| tree.attribute(vcpu, "max"));
        Ok(DomainCapabilities {
            machine: tree.text_at(tree.top, &["machine"]),
            max_vcpus: vcpu.and_then(|max| max.parse().ok()),
        })
    }
}

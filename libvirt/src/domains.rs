//! Calls about domains.

use crate::Libvirt;
use crate::error::{Error, Kind, Result};
use crate::ffi;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::enumutil::Enum;
use virt::error::ErrorNumber;
use virt::sys;

/// A domain in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSummary {
    /// UUID in its usual form.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Number while it runs.
    pub id: Option<u32>,
    /// Whether it runs.
    pub state: DomainState,
}

/// All about one domain at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainDetail {
    /// As in lists.
    pub summary: DomainSummary,
    /// What the next boot gets; of a transient domain what runs.
    pub inactive_xml: String,
    /// What runs.
    pub live_xml: Option<String>,
    /// Whether it stays when it is off.
    pub persistent: bool,
    /// Whether libvirt starts it with the host.
    pub autostart: bool,
    /// How many snapshots it has.
    pub snapshots: u32,
    /// Name of the snapshot that it goes on from.
    pub current_snapshot: Option<String>,
}

/// Whether a domain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It runs.
    Running,
    /// It is paused or suspended.
    Paused,
    /// Its guest is shutting down.
    ShuttingDown,
    /// It is off.
    Off(OffReason),
    /// It panicked and is kept.
    Crashed,
}

/// How a domain came to be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffReason {
    /// libvirt does not know.
    Unknown,
    /// Its guest shut down.
    Shutdown,
    /// Somebody pulled the plug.
    Destroyed,
    /// It crashed, or QEMU died.
    Crashed,
    /// It did not start.
    Failed,
    /// It was saved, migrated or reverted.
    Elsewhere,
}

/// Whom to ask for a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// The ACPI power button.
    Acpi,
    /// The guest agent.
    Agent,
}

impl DomainState {
    /// libvirt's word, as virsh prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            DomainState::Running => "running",
            DomainState::Paused => "paused",
            DomainState::ShuttingDown => "in shutdown",
            DomainState::Off(_) => "shut off",
            DomainState::Crashed => "crashed",
        }
    }
}

/// From libvirt's numbers (virDomainState, virDomainShutoffReason).
pub(crate) fn state(state: i32, reason: i32) -> DomainState {
    match state as u32 {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => DomainState::Running,
        sys::VIR_DOMAIN_SHUTDOWN => DomainState::ShuttingDown,
        sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
        sys::VIR_DOMAIN_SHUTOFF => DomainState::Off(match reason as u32 {
            sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => OffReason::Shutdown,
            sys::VIR_DOMAIN_SHUTOFF_DESTROYED => OffReason::Destroyed,
            sys::VIR_DOMAIN_SHUTOFF_CRASHED => OffReason::Crashed,
            sys::VIR_DOMAIN_SHUTOFF_FAILED => OffReason::Failed,
            sys::VIR_DOMAIN_SHUTOFF_MIGRATED
            | sys::VIR_DOMAIN_SHUTOFF_SAVED
            | sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT => OffReason::Elsewhere,
            _ => OffReason::Unknown,
        }),
        _ => DomainState::Paused,
    }
}

impl Libvirt {
    /// All domains, in two calls whatever their number.
    pub async fn domains(&self) -> Result<Vec<DomainSummary>> {
        let all = self.list("virConnectListAllDomains", listed).await?;
        Ok(all.into_iter().map(|(_, summary)| summary).collect())
    }

    /// All domains with the element of that namespace in their metadata: one call more for each.
    pub async fn domains_with(&self, namespace: &'static str) -> Result<Vec<(DomainSummary, Option<String>)>> {
        self.list("virConnectListAllDomains", move |connect| {
            let mut all = Vec::new();
            for (domain, summary) in listed(connect)? {
                match element(&domain, namespace) {
                    Ok(element) => all.push((summary, element)),
                    // It went meanwhile, which its event tells.
                    Err(error) if Error::of("", &error).kind == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(all)
        })
        .await
    }

    /// The domain of this UUID as in lists, with the element of that namespace in its metadata.
    pub async fn glance(&self, uuid: &str, namespace: &'static str) -> Result<Option<(DomainSummary, Option<String>)>> {
        let uuid = uuid.to_owned();
        absent_as_none(
            self.list("virDomainGetMetadata", move |connect| {
                let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
                let summary = DomainSummary { name: domain.name()?, id: domain.id(), state: state_of(&domain)?, uuid };
                Ok((summary, element(&domain, namespace)?))
            })
            .await,
        )
    }

    /// All about the domain of this UUID.
    pub async fn domain(&self, uuid: &str) -> Result<Option<DomainDetail>> {
        let uuid = uuid.to_owned();
        absent_as_none(
            self.look("virDomainGetXMLDesc", move |connect| detail(&connect.lookup_domain_by_uuid_string(&uuid)?))
                .await,
        )
    }

    /// UUID of the domain of this name.
    pub async fn domain_named(&self, name: &str) -> Result<Option<String>> {
        let name = name.to_owned();
        absent_as_none(
            self.list("virDomainLookupByName", move |connect| connect.lookup_domain_by_name(&name)?.uuid_string())
                .await,
        )
    }

    /// Defines a domain or changes its definition; checked against libvirt's schema.
    pub async fn define(&self, xml: String) -> Result<()> {
        let deadline = self.lanes.settings().call;
        let call =
            move |connect: &Connect| connect.define_domain_xml_flags(&xml, sys::VIR_DOMAIN_DEFINE_VALIDATE).map(drop);
        self.step("virDomainDefineXML", deadline, call).await
    }

    /// Writes (or with `None` removes) the element of that namespace in the metadata of configuration and running domain.
    pub async fn set_metadata(
        &self,
        uuid: &str,
        namespace: &'static str,
        prefix: &'static str,
        element: Option<String>,
    ) -> Result<()> {
        self.with("virDomainSetMetadata", uuid, move |domain| {
            let mut affects = 0;
            if domain.is_persistent()? {
                affects |= sys::VIR_DOMAIN_AFFECT_CONFIG;
            }
            if domain.id().is_some() {
                affects |= sys::VIR_DOMAIN_AFFECT_LIVE;
            }
            let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
            domain.set_metadata(kind, element.as_deref(), Some(prefix), Some(namespace), affects)
        })
        .await
    }

    /// Starts a domain.
    pub async fn create(&self, uuid: &str) -> Result<()> {
        let uuid = uuid.to_owned();
        let call = move |connect: &Connect| connect.lookup_domain_by_uuid_string(&uuid)?.create();
        self.step("virDomainCreate", self.lanes.settings().start, call).await
    }

    /// Gives a running domain a device; its definition stays as it is.
    pub async fn attach(&self, uuid: &str, device: String) -> Result<()> {
        self.with("virDomainAttachDevice", uuid, move |domain| {
            domain.attach_device_flags(&device, sys::VIR_DOMAIN_AFFECT_LIVE)
        })
        .await
    }

    /// Asks a running guest to let go of a device; its definition stays as it is. The guest may take its time, or not hear.
    pub async fn detach(&self, uuid: &str, device: String) -> Result<()> {
        self.with("virDomainDetachDevice", uuid, move |domain| {
            domain.detach_device_flags(&device, sys::VIR_DOMAIN_AFFECT_LIVE)
        })
        .await
    }

    /// Grows the disk of a running domain to so many bytes; the guest sees it at once. libvirt itself would shrink it as readily.
    pub async fn grow_disk(&self, uuid: &str, target: &str, bytes: u64) -> Result<()> {
        const ACT: &str = "virDomainBlockResize";
        let (uuid, target) = (uuid.to_owned(), target.to_owned());
        let call = move |connect: &Connect| {
            let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
            let before = domain.block_info(&target, 0)?.capacity;
            if before < bytes {
                domain.block_resize(&target, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES)?;
            }
            Ok(before)
        };
        match self.step(ACT, self.lanes.settings().call, call).await? {
            before if before > bytes => Err(Error::new(
                ACT,
                Kind::Invalid,
                format!("the disk has {before} bytes and is never shrunk to {bytes}"),
            )),
            _ => Ok(()),
        }
    }

    /// Asks a guest to shut down.
    pub async fn shutdown(&self, uuid: &str, mode: ShutdownMode) -> Result<()> {
        let flag = match mode {
            ShutdownMode::Acpi => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
            ShutdownMode::Agent => sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
        };
        self.with("virDomainShutdown", uuid, move |domain| match domain.shutdown_flags(flag) {
            Err(error) if flagless(&error) => domain.shutdown(),
            other => other,
        })
        .await
    }

    /// Pulls the plug.
    pub async fn destroy(&self, uuid: &str) -> Result<()> {
        let uuid = uuid.to_owned();
        let call = move |connect: &Connect| connect.lookup_domain_by_uuid_string(&uuid)?.destroy();
        self.step("virDomainDestroy", self.lanes.settings().start, call).await
    }

    /// Removes a definition with what hangs on it: saved state, firmware variables, snapshot records.
    pub async fn undefine(&self, uuid: &str) -> Result<()> {
        self.with("virDomainUndefine", uuid, |domain| {
            let records = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
            match domain.undefine_flags(records | sys::VIR_DOMAIN_UNDEFINE_NVRAM) {
                // A driver without firmware has no variables to remove.
                Err(error) if flagless(&error) => domain.undefine_flags(records),
                other => other,
            }
        })
        .await
    }

    /// Sets whether libvirt starts it with the host.
    pub async fn set_autostart(&self, uuid: &str, on: bool) -> Result<()> {
        self.with("virDomainSetAutostart", uuid, move |domain| domain.set_autostart(on)).await
    }

    async fn with(
        &self,
        act: &'static str,
        uuid: &str,
        call: impl FnOnce(&Domain) -> Result<(), virt::error::Error> + Send + 'static,
    ) -> Result<()> {
        let uuid = uuid.to_owned();
        let deadline = self.lanes.settings().call;
        self.step(act, deadline, move |connect| call(&connect.lookup_domain_by_uuid_string(&uuid)?)).await
    }
}

fn listed(connect: &Connect) -> Result<Vec<(Domain, DomainSummary)>, virt::error::Error> {
    let states = ffi::states(connect)?;
    let mut all = Vec::new();
    for domain in connect.list_all_domains(0)? {
        let uuid = domain.uuid_string()?;
        // One that came between the two calls gets its event.
        let Some(state) = states.get(&uuid).copied() else {
            continue;
        };
        let summary = DomainSummary { name: domain.name()?, id: domain.id(), state, uuid };
        all.push((domain, summary));
    }
    Ok(all)
}

/// The element of that namespace in the metadata of a domain's configuration, if there is one.
fn element(domain: &Domain, namespace: &'static str) -> Result<Option<String>, virt::error::Error> {
    match domain.metadata(sys::VIR_DOMAIN_METADATA_ELEMENT as i32, Some(namespace), 0) {
        Ok(element) => Ok(Some(element)),
        Err(error) if error.code() == Enum::Known(ErrorNumber::NoDomainMetadata) => Ok(None),
        Err(error) => Err(error),
    }
}

fn state_of(domain: &Domain) -> Result<DomainState, virt::error::Error> {
    let (known, reason) = domain.state()?;
    let numbers = (known.to_raw(), reason_number(&reason));
    // `virt` gives -1 where libvirt failed.
    if numbers.0 as i32 == -1 {
        return Err(virt::error::Error::last_error());
    }
    Ok(state(numbers.0 as i32, numbers.1))
}

fn detail(domain: &Domain) -> Result<DomainDetail, virt::error::Error> {
    let id = domain.id();
    let persistent = domain.is_persistent()?;
    let live_xml = id.map(|_| domain.xml_desc(0)).transpose()?;
    let snapshots = domain.num_snapshots(0)?;
    let inactive = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
    Ok(DomainDetail {
        summary: DomainSummary { uuid: domain.uuid_string()?, name: domain.name()?, id, state: state_of(domain)? },
        inactive_xml: domain.xml_desc(inactive)?,
        live_xml,
        persistent,
        autostart: persistent && domain.autostart()?,
        current_snapshot: current_snapshot(domain, snapshots)?,
        snapshots,
    })
}

pub(crate) fn current_snapshot(domain: &Domain, snapshots: u32) -> Result<Option<String>, virt::error::Error> {
    if snapshots == 0 {
        return Ok(None);
    }
    match domain.current_snapshot(0).and_then(|snapshot| snapshot.name()) {
        Ok(name) => Ok(Some(name)),
        // It goes on from none: the last one was deleted, or is not marked as such.
        Err(error) if Error::of("", &error).kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the driver refused only the choice of ways: then it has one way.
fn flagless(error: &virt::error::Error) -> bool {
    [Kind::Invalid, Kind::Unsupported].contains(&Error::of("", error).kind)
        && error.message().contains("unsupported flags")
}

fn reason_number(reason: &virt::domain::DomainStateReasonEnum) -> i32 {
    use virt::domain::DomainStateReason::Shutoff;
    match reason {
        Enum::Known(Shutoff(reason)) => reason.to_raw() as i32,
        Enum::Known(_) | Enum::Unknown(_) => 0,
    }
}

pub(crate) fn absent_as_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

//! Carries one step out. No policy: the plan decided.

use super::observe::Sight;
use crate::context::Context;
use crate::marks::Known;
use crds::virtual_machine::VirtualMachine;
use jiff::Timestamp;
use kube::ResourceExt;
use libvirt::{Kind, Result, ShutdownMode};
use libvirt_xml::{Address, disk_device, mark};
use plan::virtual_machine::{Ask, Observed, Step};

/// Why a step was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// libvirt's answer; trying again may help.
    Libvirt(libvirt::Error),
    /// What the manifest asks for cannot be; trying again would not help.
    Refused(String),
}

impl From<libvirt::Error> for Failure {
    fn from(error: libvirt::Error) -> Self {
        Failure::Libvirt(error)
    }
}

/// The step's name in logs and errors.
pub fn verb(step: &Step) -> &'static str {
    match step {
        Step::Define(_) => "define",
        Step::Redefine(_) => "redefine",
        Step::Mark(_) => "mark",
        Step::Unmark => "unmark",
        Step::Start => "start",
        Step::Attach { .. } => "attach a disk",
        Step::Detach { .. } => "detach a disk",
        Step::AskShutdown(_) => "ask to shut down",
        Step::Destroy => "destroy",
        Step::Undefine => "undefine",
        Step::SetAutostart(_) => "set autostart",
    }
}

/// Carries it out.
///
/// # Errors
/// What libvirt or the XML writer said.
pub async fn execute(
    context: &Context,
    vm: &VirtualMachine,
    step: &Step,
    sight: &Sight,
) -> std::result::Result<(), Failure> {
    let libvirt = &context.libvirt;
    let uuid = uuid(step, sight);
    match step {
        Step::Define(domain) => {
            define(context, domain.render()).await?;
            // libvirt's event tells the same, but not before the next look.
            let known = Known { name: domain.name.clone(), state: "shut off".into(), mark: domain.mark.clone() };
            context.marks.set(&uuid, Some(known));
        }
        Step::Redefine(domain) => define(context, domain.edit(&sight.inactive_xml)).await?,
        Step::Mark(new) => {
            let element = new.element().map_err(|error| Failure::Refused(error.to_string()))?;
            libvirt.set_metadata(&uuid, mark::NAMESPACE, mark::PREFIX, Some(element)).await?;
            context.marks.set_mark(&uuid, Some(new.clone()));
        }
        Step::Unmark => {
            libvirt.set_metadata(&uuid, mark::NAMESPACE, mark::PREFIX, None).await?;
            context.marks.set_mark(&uuid, None);
        }
        Step::Start => {
            let result = libvirt.create(&uuid).await;
            context.memory.lock().entry(uuid.clone()).or_default().tried(result.is_ok(), Timestamp::now());
            result?;
        }
        Step::Attach { disk } => attach(context, &uuid, disk, sight).await?,
        Step::Detach { disk } => {
            let device = device(&sight.live_xml, disk, Address::AsDefined)?;
            let asked = (disk.clone(), Timestamp::now());
            context.memory.lock().entry(uuid.clone()).or_default().detaching.extend([asked]);
            libvirt.detach(&uuid, device).await?;
        }
        Step::AskShutdown(ask) => {
            let result = shut_down(context, &uuid, *ask).await;
            context.memory.lock().entry(uuid.clone()).or_default().asked = Some(Timestamp::now());
            result?;
        }
        Step::Destroy => libvirt.destroy(&uuid).await?,
        Step::Undefine => libvirt.undefine(&uuid).await?,
        Step::SetAutostart(on) => libvirt.set_autostart(&uuid, *on).await?,
    }
    tracing::info!("{}/{}: {}", vm.namespace().unwrap_or_default(), vm.name_any(), verb(step));
    Ok(())
}

fn uuid(step: &Step, sight: &Sight) -> String {
    match (step, &sight.observed) {
        (Step::Define(domain), _) => domain.uuid.clone(),
        (_, Observed::Ours(seen)) => seen.config.uuid.clone(),
        (_, Observed::Absent | Observed::Foreign { .. }) => String::new(),
    }
}

async fn define(
    context: &Context,
    xml: std::result::Result<String, libvirt_xml::Error>,
) -> std::result::Result<(), Failure> {
    let xml = xml.map_err(|error| Failure::Refused(error.to_string()))?;
    match context.libvirt.define(xml).await {
        Err(error) if [Kind::Invalid, Kind::Unsupported].contains(&error.kind) => {
            Err(Failure::Refused(error.to_string()))
        }
        other => Ok(other?),
    }
}

/// Where the definition has it, so that the next boot finds it in the same place; or anywhere, when that place is not free.
async fn attach(context: &Context, uuid: &str, disk: &str, sight: &Sight) -> std::result::Result<(), Failure> {
    let as_defined = device(&sight.inactive_xml, disk, Address::AsDefined)?;
    match context.libvirt.attach(uuid, as_defined).await {
        Err(error) if error.message.contains("PCI") => {
            tracing::debug!("attaching a disk elsewhere: {error}");
            let anywhere = device(&sight.inactive_xml, disk, Address::Free)?;
            context.libvirt.attach(uuid, anywhere).await.map_err(|mut error| {
                error.message += "; the next start of the guest brings the disk (annotation virtfleet.dev/restartedAt)";
                Failure::Libvirt(error)
            })
        }
        other => Ok(other?),
    }
}

fn device(xml: &str, disk: &str, address: Address) -> std::result::Result<String, Failure> {
    disk_device(xml, disk, address).map_err(|error| Failure::Refused(error.to_string()))
}

/// A guest agent that does not hear is no reason to wait: the power button is tried at once.
async fn shut_down(context: &Context, uuid: &str, ask: Ask) -> Result<()> {
    if ask == Ask::Agent && context.libvirt.shutdown(uuid, ShutdownMode::Agent).await.is_ok() {
        return Ok(());
    }
    context.libvirt.shutdown(uuid, ShutdownMode::Acpi).await
}

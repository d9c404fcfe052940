//! One look at a machine's domain.

use crate::chains;
use crate::context::Context;
use crate::snapshot;
use crate::snapshot::behind::behind;
use crate::snapshot::observe::unlooked;
use crds::TeardownPolicy;
use crds::snapshot::Snapshot;
use crds::storage_volume::Format;
use crds::virtual_machine::VirtualMachine;
use jiff::Timestamp;
use kube::ResourceExt;
use libvirt::{DomainDetail, DomainState, OffReason};
use libvirt_xml::{DiskFormat, Domain, Mark, Run, domain_and_facts, mark_of};
use plan::names;
use plan::snapshot::Attempt;
use plan::virtual_machine::power::is_merged_by_libvirt;
use plan::virtual_machine::{Cause, Observed, Seen, State};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was seen, and the XML that an edit goes into.
pub struct Sight {
    /// What was seen.
    pub observed: Observed,
    /// The domain's inactive XML; empty without a domain.
    pub inactive_xml: String,
    /// The running guest's XML; empty while it is off.
    pub live_xml: String,
}

/// Looks.
///
/// # Errors
/// libvirt's answer. XML that cannot be understood is a foreign domain's, unless it carries our mark.
pub async fn observe(context: &Context, vm: &VirtualMachine) -> libvirt::Result<Sight> {
    let (namespace, name) = (vm.namespace().unwrap_or_default(), vm.name_any());
    // Before libvirt is asked: a definition from before the end of a merge is not to be taken for one from after it.
    let merging = context.attempts.merging(&namespace, &name, None);
    if let Some(uuid) = context.marks.find(&context.cluster, &namespace, &name)
        && let Some(detail) = context.libvirt.domain(&uuid).await?
        && let Some(mark) = own_mark(context, &namespace, &name, &detail)
    {
        return ours(context, detail, mark, merging);
    }
    let Some(uuid) = context.libvirt.domain_named(&names::domain(&namespace, &name)).await? else {
        return Ok(nothing(Observed::Absent));
    };
    let Some(detail) = context.libvirt.domain(&uuid).await? else {
        return Ok(nothing(Observed::Absent));
    };
    match own_mark(context, &namespace, &name, &detail) {
        Some(mark) => ours(context, detail, mark, merging),
        None => Ok(nothing(Observed::Foreign { whose: whose(&detail) })),
    }
}

fn nothing(observed: Observed) -> Sight {
    Sight { observed, inactive_xml: String::new(), live_xml: String::new() }
}

/// The XML that marks are written into: a domain that was undefined while it runs has no configuration that could be changed.
fn marked(detail: &DomainDetail) -> &str {
    let live = detail.live_xml.as_ref().filter(|_| !detail.persistent);
    live.unwrap_or(&detail.inactive_xml)
}

fn own_mark(context: &Context, namespace: &str, name: &str, detail: &DomainDetail) -> Option<Mark> {
    let mark = mark_of(marked(detail)).ok()??;
    let owner = &mark.owner;
    (owner.cluster == context.cluster && owner.namespace == namespace && owner.name == name).then_some(mark)
}

fn whose(detail: &DomainDetail) -> String {
    let name = &detail.summary.name;
    match mark_of(marked(detail)) {
        Ok(Some(mark)) => {
            let owner = mark.owner;
            format!("domain {name} belongs to machine {}/{} of cluster {}", owner.namespace, owner.name, owner.cluster)
        }
        Ok(None) | Err(_) => format!("the host has a domain {name} that is not Virtfleet's"),
    }
}

fn ours(context: &Context, detail: DomainDetail, mark: Mark, merging: Option<String>) -> libvirt::Result<Sight> {
    let unreadable = |error: libvirt_xml::Error| libvirt::Error {
        act: "read the domain's XML",
        kind: libvirt::Kind::Other,
        message: error.to_string(),
    };
    let (config, of_config) = domain_and_facts(&detail.inactive_xml).map_err(unreadable)?;
    let config = Domain { mark: Some(mark.clone()), ..config };
    let live = detail.live_xml.as_deref().map(domain_and_facts).transpose().map_err(unreadable)?;
    let behind =
        behind(context, (&mark.owner.namespace, &mark.owner.name), &config, live.as_ref()).map_err(unlooked)?;
    let (live, of_live) = live.unzip();
    let state = state(detail.summary.state);
    let memory = {
        let mut all = context.memory.lock();
        let memory = all.entry(config.uuid.clone()).or_default();
        if matches!(state, State::Off(Cause::Failure)) && mark.run == Run::Started {
            memory.died(Timestamp::now());
        }
        memory.detaching.retain(|name, _| live.iter().flat_map(|live| &live.disks).any(|disk| disk.name == *name));
        memory.clone()
    };
    let all = of_config.disks.iter().chain(of_live.iter().flat_map(|facts| &facts.disks));
    let targets: BTreeSet<_> = all.map(|disk| disk.target.clone()).collect();
    let disks = || config.disks.iter().chain(live.iter().flat_map(|live| &live.disks));
    let mut chains = chains::of(disks().map(file));
    // Of what runs libvirt tells it too, also where the file is hidden from us.
    for disk in of_live.iter().flat_map(|facts| &facts.disks).filter(|disk| !disk.below.is_empty()) {
        chains.entry(disk.file.clone()).or_insert_with(|| disk.below.clone());
    }
    let seen = Seen {
        asked: memory.asked.filter(|_| matches!(mark.run, Run::Stopping { .. })),
        failures: memory.failures,
        targets: targets.into_iter().collect(),
        detaching: memory.detaching,
        ahead: behind.ahead,
        unseen: disks().map(|disk| disk.file.clone()).filter(|file| chains::is_hidden(file)).collect(),
        chains,
        snapshots: (detail.snapshots, detail.current_snapshot),
        merging: merging.or_else(|| begun_before(context, &mark, state)),
        id: detail.summary.id,
        autostart: detail.autostart,
        persistent: detail.persistent,
        agent_connected: of_live.is_some_and(|facts| facts.agent_connected),
        mark,
        config,
        live,
        state,
    };
    let live_xml = detail.live_xml.unwrap_or_default();
    Ok(Sight { observed: Observed::Ours(Box::new(seen)), inactive_xml: detail.inactive_xml, live_xml })
}

/// The snapshot that libvirt has merged since before this agent began.
fn begun_before(context: &Context, mark: &Mark, state: State) -> Option<String> {
    let owner = &mark.owner;
    let all = context.stores.snapshots.state();
    let goes = |s: &&Arc<Snapshot>| {
        s.namespace().as_ref() == Some(&owner.namespace)
            && s.spec.virtual_machine == owner.name
            && snapshot::vanish(s).is_some_and(|(policy, _)| policy == TeardownPolicy::Delete)
            && context.attempts.of(&s.uid().unwrap_or_default()) == Attempt::None
    };
    let found = all.iter().filter(|_| is_merged_by_libvirt(mark.run, state)).find(goes);
    found.map(|snapshot| snapshot.name_any())
}

fn file(disk: &libvirt_xml::Disk) -> (&str, Format) {
    let format = match disk.format {
        DiskFormat::Raw => Format::Raw,
        DiskFormat::Qcow2 => Format::Qcow2,
    };
    (&disk.file, format)
}

/// Whether it runs, in the plan's words.
pub fn state(state: DomainState) -> State {
    match state {
        DomainState::Running => State::Running,
        DomainState::Paused => State::Paused,
        DomainState::Crashed => State::Crashed,
        DomainState::ShuttingDown => State::ShuttingDown,
        DomainState::Off(reason) => State::Off(match reason {
            OffReason::Shutdown => Cause::Shutdown,
            OffReason::Destroyed | OffReason::Crashed | OffReason::Failed => Cause::Failure,
            OffReason::Unknown | OffReason::Elsewhere => Cause::Unknown,
        }),
    }
}

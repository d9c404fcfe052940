//! What a machine's status says, from what was wanted, seen and answered. Pure: equal looks give equal statuses.

mod verdict;

use super::{Goal, Invalid, Next, Observed, Seen, Step, Why, changes, overlays};
use crds::conditions::{Builder, Status, Type, find};
use crds::virtual_machine::{
    Apply, DiskStatus, DomainStatus, GuestStatus, InterfaceStatus, MachinePhase, ResourcesStatus, SnapshotsStatus,
    VirtualMachineStatus,
};
use crds::{Condition, Teardown, quantity};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use libvirt_xml::Domain;
use std::collections::BTreeMap;
use verdict::{Progress, Verdict, verdict};

/// One look at a machine, with its outcome.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// The stored status.
    pub previous: &'a VirtualMachineStatus,
    /// Generation of the spec that was looked at.
    pub generation: i64,
    /// What was wanted, or why it cannot be.
    pub goal: Result<&'a Goal, &'a Invalid>,
    /// What was seen; absent when libvirt did not answer.
    pub seen: Option<&'a Observed>,
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// What the guest agent told.
    pub guest: Option<&'a Guest>,
    /// The agent's clock.
    pub now: Timestamp,
}

/// What came of a look.
#[derive(Clone, Debug)]
pub enum Outcome<'a> {
    /// The plan's last answer.
    Planned(&'a Next),
    /// An effect failed; it will be tried again.
    Failed {
        /// Which one.
        step: &'a Step,
        /// What libvirt said.
        message: String,
    },
    /// libvirt refused what the manifest asks for; trying again would not help.
    Refused {
        /// What libvirt said.
        message: String,
    },
    /// libvirt does not answer.
    Unreachable {
        /// Why.
        message: String,
    },
    /// The manifest cannot be carried out here.
    Invalid,
}

/// What the guest agent told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// The guest's name for itself.
    pub hostname: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// Addresses by hardware address.
    pub addresses: BTreeMap<String, Vec<String>>,
}

/// The fields of a stored status that an agent writes: the rest is the controller's.
pub fn ours(status: &VirtualMachineStatus) -> VirtualMachineStatus {
    let conditions = status.conditions.iter().filter(|c| c.type_ != Type::Scheduled.as_str()).cloned().collect();
    let done = status.teardown.as_ref().and_then(|teardown| teardown.done.clone());
    VirtualMachineStatus {
        host: None,
        teardown: done.map(|done| Teardown { done: Some(done), ..Teardown::default() }),
        conditions,
        ..status.clone()
    }
}

/// The agent's whole part of the status.
pub fn status(look: &Look<'_>) -> VirtualMachineStatus {
    if let Outcome::Unreachable { message } = &look.outcome {
        return unreachable(look, message);
    }
    let kept = look.goal.ok().zip(look.seen).map(|(goal, seen)| overlays::kept(goal, seen));
    let look = &Look { goal: kept.as_deref().map_or(look.goal, Ok), ..look.clone() };
    let domain = match look.seen {
        Some(Observed::Ours(seen)) => Some(&**seen),
        Some(Observed::Absent | Observed::Foreign { .. }) | None => None,
    };
    let verdict = verdict(look, domain);
    let current = domain.map(|seen| seen.live.as_ref().unwrap_or(&seen.config));
    VirtualMachineStatus {
        observed_generation: Some(look.generation),
        phase: Some(verdict.phase),
        host: None,
        domain: domain.map(|seen| DomainStatus {
            name: seen.config.name.clone(),
            uuid: seen.config.uuid.clone(),
            id: seen.id.map(i64::from),
        }),
        resources: current.map(|d| ResourcesStatus {
            cores: i32::try_from(d.vcpus).unwrap_or(i32::MAX),
            memory: quantity::from_bytes(d.memory_kib * 1024),
        }),
        started_at: domain.and_then(|seen| started_at(look, seen)),
        disks: current.map(disks).unwrap_or_default(),
        interfaces: current.map(|d| interfaces(d, look.guest)).unwrap_or_default(),
        pending_changes: match (look.goal, domain) {
            (Ok(Goal::Exist(want)), Some(seen)) => changes::waiting(want, seen),
            (Ok(_) | Err(_), _) => Vec::new(),
        },
        guest: look.guest.map(|guest| GuestStatus { hostname: guest.hostname.clone(), os: guest.os.clone() }),
        snapshots: domain.and_then(snapshots),
        teardown: teardown(look),
        conditions: conditions(look, domain, &verdict),
    }
}

/// Whether `wanted` tells only of something that is waited for and may come in a moment, and was not told yet.
pub fn may_pass(look: &Look<'_>, wanted: &VirtualMachineStatus) -> bool {
    let waits = match &look.outcome {
        Outcome::Planned(Next::Wait { why: Why::Volumes(_) | Why::Shutdown, .. }) => true,
        Outcome::Planned(
            Next::Wait { why: Why::Backoff | Why::Detach(_) | Why::Snapshot(_), .. }
            | Next::Done
            | Next::Do(_)
            | Next::Refuse { .. },
        )
        | Outcome::Failed { .. }
        | Outcome::Refused { .. }
        | Outcome::Unreachable { .. }
        | Outcome::Invalid => false,
    };
    let ready = |status: &VirtualMachineStatus| find(&status.conditions, Type::Ready).map(|c| c.reason.clone());
    waits && ready(look.previous) != ready(wanted)
}

/// Unknown is a state: what was last seen stays, only phase and Ready say that nobody can tell.
fn unreachable(look: &Look<'_>, message: &str) -> VirtualMachineStatus {
    let mut status = ours(look.previous);
    let others = std::mem::take(&mut status.conditions)
        .into_iter()
        .filter(|c| ![Type::Ready, Type::Reconciling, Type::Stalled].iter().any(|kind| kind.as_str() == c.type_));
    let ready = Builder::new(&look.previous.conditions, look.generation, look.now)
        .set(Type::Ready, Status::Unknown, "LibvirtUnreachable", message)
        .build();
    status.conditions = others.chain(ready).collect();
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status.observed_generation = Some(look.generation);
    status.phase = Some(MachinePhase::Unknown);
    status
}

fn conditions(look: &Look<'_>, domain: Option<&Seen>, verdict: &Verdict) -> Vec<Condition> {
    let Verdict { ready, reason, message, progress, phase: _ } = verdict;
    let (under_way, stalled) = match progress {
        Progress::Settled => (None, false),
        Progress::UnderWay(reason, message) => (Some((*reason, message.clone())), false),
        Progress::Stalled => (None, true),
    };
    let (busy_reason, busy_message) = under_way.clone().unwrap_or_default();
    let want = match look.goal {
        Ok(Goal::Exist(want)) => Some(&**want),
        Ok(Goal::Vanish(_)) | Err(_) => None,
    };
    let mut list = Builder::new(&look.previous.conditions, look.generation, look.now)
        .set(Type::Ready, Status::from(*ready), reason, message.clone())
        .set_while(under_way.is_some(), Type::Reconciling, busy_reason, busy_message)
        .set_while(stalled, Type::Stalled, reason, message.clone())
        .set_while(stalled && *reason == "Conflict", Type::Conflict, reason, message.clone());
    if let Some(want) = want {
        let (reason, told) = match &want.shape {
            Err(waiting) => ("VolumesNotReady", waiting.to_string()),
            Ok(_) if want.otherwise.is_empty() => ("VolumesReady", String::new()),
            Ok(_) => ("TemplateDiffers", template_differs(&want.otherwise)),
        };
        list = list.set(Type::VolumesReady, Status::from(want.shape.is_ok()), reason, told);
    }
    if let (Some(want), Some(seen)) = (want, domain) {
        let waiting = changes::waiting(want, seen).into_iter().filter(|change| change.apply == Apply::Restart);
        let fields: Vec<_> = waiting.map(|change| change.path).collect();
        let message = format!(
            "these wait for the next start: {}; annotate the machine with virtfleet.dev/restartedAt to restart it",
            fields.join(", ")
        );
        list = list.set_while(!fields.is_empty(), Type::RestartRequired, "ChangesPending", message);
        if seen.config.guest_agent {
            let connected = seen.agent_connected;
            let reason = if connected { "Connected" } else { "NotConnected" };
            list = list.set(Type::AgentConnected, Status::from(connected), reason, "");
        }
    }
    list.build()
}

fn template_differs(otherwise: &[String]) -> String {
    format!(
        "{} than the disk's template says now, and stays as it is; for another take the disk away, delete the volume and add the disk again, or use another disk name",
        otherwise.join("; ")
    )
}

fn started_at(look: &Look<'_>, seen: &Seen) -> Option<Time> {
    let same_run = look.previous.domain.as_ref().and_then(|d| d.id) == seen.id.map(i64::from);
    let known = look.previous.started_at.clone().filter(|_| same_run);
    seen.id.map(|_| known.unwrap_or(Time(look.now)))
}

fn snapshots(seen: &Seen) -> Option<SnapshotsStatus> {
    let (count, current) = &seen.snapshots;
    (*count > 0).then(|| SnapshotsStatus { count: (*count).into(), current: current.clone() })
}

fn disks(domain: &Domain) -> Vec<DiskStatus> {
    let disk =
        |d: &libvirt_xml::Disk| DiskStatus { name: d.name.clone(), target: d.target.clone(), path: d.file.clone() };
    domain.disks.iter().map(disk).collect()
}

fn interfaces(domain: &Domain, guest: Option<&Guest>) -> Vec<InterfaceStatus> {
    let addresses = |mac: &str| guest.and_then(|guest| guest.addresses.get(mac)).cloned().unwrap_or_default();
    domain
        .interfaces
        .iter()
        .map(|nic| InterfaceStatus {
            name: nic.name.clone(),
            mac_address: nic.mac.clone(),
            addresses: addresses(&nic.mac),
        })
        .collect()
}

/// `done` once nothing is left to do for the uid that goes; it stays, since nothing follows it.
fn teardown(look: &Look<'_>) -> Option<Teardown> {
    match (look.goal, &look.outcome) {
        (Ok(Goal::Vanish(vanish)), Outcome::Planned(Next::Done)) => {
            Some(Teardown { done: Some(vanish.uid.clone()), ..Teardown::default() })
        }
        (Ok(_) | Err(_), _) => ours(look.previous).teardown,
    }
}

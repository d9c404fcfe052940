//! What a snapshot's status says: the agent's part. Pure: equal looks give equal statuses.

use super::{Attempt, Goal, Next, Observed, Reason, Seen, find, removal};
use crds::conditions::{Builder, Status, Type};
use crds::snapshot::{RefKind, SnapshotDisk, SnapshotPhase, SnapshotPower, SnapshotRef, SnapshotStatus, UsedMethod};
use crds::{Teardown, quantity};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use libvirt_xml::snapshot::{Place, Snapshot};
use std::collections::BTreeMap;

/// What came of a look.
#[derive(Clone, Debug)]
pub enum Outcome<'a> {
    /// The plan's last answer, with what was seen.
    Planned(&'a Observed, &'a Next),
    /// The manifest cannot be carried out.
    Invalid(&'a Reason),
    /// libvirt does not answer.
    Unreachable {
        /// Why.
        message: String,
    },
}

/// One look at a snapshot, with its outcome.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// The stored status.
    pub previous: &'a SnapshotStatus,
    /// Generation of the spec that was looked at.
    pub generation: i64,
    /// What was wanted; absent when the manifest is invalid.
    pub goal: Option<&'a Goal>,
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// Bytes that the guest sees of files, as far as they are there.
    pub sizes: &'a BTreeMap<String, u64>,
    /// The agent's clock.
    pub now: Timestamp,
}

/// The fields of a stored status that an agent writes.
pub fn ours(status: &SnapshotStatus) -> SnapshotStatus {
    let done = status.teardown.as_ref().and_then(|teardown| teardown.done.clone());
    SnapshotStatus {
        host: None,
        teardown: done.map(|done| Teardown { done: Some(done), ..Teardown::default() }),
        conditions: status.conditions.iter().filter(|c| c.type_ != Type::Scheduled.as_str()).cloned().collect(),
        ..status.clone()
    }
}

/// Whether the object once said that its snapshot is there.
pub fn was_there(status: &SnapshotStatus) -> bool {
    status.created_at.is_some()
}

struct Verdict {
    phase: SnapshotPhase,
    ready: Status,
    word: &'static str,
    message: String,
    stalled: bool,
    blocked: bool,
}

/// The agent's whole part of the status.
pub fn status(look: &Look<'_>) -> SnapshotStatus {
    let Look { previous, generation, goal, outcome, sizes, now } = look;
    let Verdict { phase, ready, word, message, stalled, blocked } = verdict(*goal, outcome);
    let conditions = Builder::new(&previous.conditions, *generation, *now)
        .set(Type::Ready, ready, word, message.clone())
        .set_while(ready == Status::False && !stalled, Type::Reconciling, word, message.clone())
        .set_while(stalled, Type::Stalled, word, message.clone())
        .set_while(stalled && word == "Conflict", Type::Conflict, word, message.clone())
        .set_while(blocked, Type::DeletionBlocked, word, message)
        .build();
    // What was once told of it stays told.
    let base = SnapshotStatus {
        observed_generation: Some(*generation),
        phase: Some(phase),
        ready_to_use: Some(ready == Status::True),
        conditions,
        ..ours(previous)
    };
    let (Outcome::Planned(seen, next), Some(goal)) = (outcome, goal) else {
        return base;
    };
    let teardown = match (goal, next) {
        (Goal::Vanish { uid, .. }, Next::Done) => Some(Teardown { done: Some(uid.clone()), ..Teardown::default() }),
        (Goal::Vanish { .. } | Goal::Exist(_), _) => base.teardown.clone(),
    };
    let base = SnapshotStatus { teardown, ..base };
    match found(goal, seen) {
        Some((found, seen)) => told(base, found, seen, sizes),
        None if matches!(seen, Observed::Unsettled(_)) => base,
        // It follows nothing and nothing follows it any more.
        None => SnapshotStatus { parent: None, children: Vec::new(), current: None, ..base },
    }
}

/// The snapshot, when it is there and the object's.
fn found<'a>(goal: &Goal, seen: &'a Observed) -> Option<(&'a Snapshot, &'a Seen)> {
    let (name, uid) = match goal {
        Goal::Exist(want) => (&want.name, &want.uid),
        Goal::Vanish { name, uid, .. } => (name, uid),
    };
    match seen {
        Observed::Domain(seen) => Some((find(seen, name).filter(|found| found.uid.as_ref() == Some(uid))?, seen)),
        Observed::NoDomain(_) | Observed::Unsettled(_) => None,
    }
}

fn told(base: SnapshotStatus, found: &Snapshot, seen: &Seen, sizes: &BTreeMap<String, u64>) -> SnapshotStatus {
    let refer = |name: &str| {
        let managed = find(seen, name).is_some_and(|snapshot| snapshot.uid.is_some());
        SnapshotRef { kind: if managed { RefKind::Managed } else { RefKind::Unmanaged }, name: name.to_owned() }
    };
    let mut children: Vec<_> = removal::children(found, seen).map(refer).collect();
    children.sort();
    // What a disk's size was then is known as long as its file is not written to.
    let size = |name: &str, file: &str| {
        let known = base.disks.iter().find(|disk| disk.name == name).and_then(|disk| disk.size.clone());
        known.or_else(|| sizes.get(file).copied().map(quantity::from_bytes))
    };
    let disks = found.disks.iter().filter_map(|disk| {
        let name = disk.name.clone()?;
        Some(SnapshotDisk { size: size(&name, &disk.file), path: disk.file.clone(), name })
    });
    SnapshotStatus {
        method: match found.places.first() {
            Some(Place::Internal) => Some(UsedMethod::Internal),
            Some(Place::External) => Some(UsedMethod::External),
            None => None,
        },
        power_state: Some(match found.state.as_str() {
            "shutoff" => SnapshotPower::Stopped,
            _ => SnapshotPower::Running,
        }),
        parent: found.parent.as_deref().map(refer),
        children,
        current: Some(seen.current.as_ref() == Some(&found.name)),
        created_at: Timestamp::from_second(found.created).ok().map(Time),
        disks: disks.collect(),
        ..base
    }
}

fn verdict(goal: Option<&Goal>, outcome: &Outcome<'_>) -> Verdict {
    let verdict = |phase, ready, word, message: &str| Verdict {
        phase,
        ready,
        word,
        message: message.to_owned(),
        stalled: false,
        blocked: false,
    };
    let (seen, next) = match outcome {
        Outcome::Planned(seen, next) => (seen, next),
        Outcome::Invalid(why) => {
            return Verdict { stalled: true, ..verdict(SnapshotPhase::Failed, Status::False, why.word, &why.message) };
        }
        Outcome::Unreachable { message } => {
            return verdict(SnapshotPhase::Unknown, Status::Unknown, "LibvirtUnreachable", message);
        }
    };
    match (goal, next) {
        (Some(Goal::Vanish { .. }), Next::Blocked { why, .. }) => {
            Verdict { blocked: true, ..verdict(SnapshotPhase::Terminating, Status::False, why.word, &why.message) }
        }
        (Some(Goal::Vanish { .. }), Next::Wait { why, .. } | Next::Refuse(why)) => {
            verdict(SnapshotPhase::Terminating, Status::False, why.word, &why.message)
        }
        (Some(Goal::Vanish { .. }), Next::Done | Next::Do(_)) => {
            verdict(SnapshotPhase::Terminating, Status::False, "Terminating", "the host is letting it go")
        }
        (_, Next::Done) => verdict(SnapshotPhase::Ready, Status::True, "Ready", ""),
        (_, Next::Do(_)) => verdict(SnapshotPhase::Pending, Status::False, "Taking", ""),
        (_, Next::Wait { why, .. } | Next::Blocked { why, .. }) => {
            let failed = matches!(seen, Observed::Domain(seen) if matches!(seen.attempt, Attempt::Failed { .. }));
            let phase = if failed { SnapshotPhase::Failed } else { SnapshotPhase::Pending };
            verdict(phase, Status::False, why.word, &why.message)
        }
        (_, Next::Refuse(why)) => {
            let phase = if why.word == "Lost" { SnapshotPhase::Lost } else { SnapshotPhase::Failed };
            Verdict { stalled: true, ..verdict(phase, Status::False, why.word, &why.message) }
        }
    }
}

//! What a volume's status says. Pure: equal looks give equal statuses.

use super::{File, Goal, Job, Next, Observed, Step, Why};
use crds::conditions::{Builder, Status, Type};
use crds::storage_volume::{StorageVolumeStatus, VolumePhase};
use crds::{Quantity, Teardown, quantity};
use jiff::Timestamp;

/// What came of a look.
#[derive(Clone, Debug)]
pub enum Outcome<'a> {
    /// The plan's last answer, with what was seen.
    Planned(&'a Observed, &'a Next),
    /// An effect failed; it will be tried again.
    Failed {
        /// Whether the volume is there all the same, and only did not grow.
        usable: bool,
        /// CamelCase word.
        reason: &'static str,
        /// What happened.
        message: String,
    },
    /// The manifest cannot be carried out.
    Invalid {
        /// CamelCase word.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The pool is not ready on this host.
    NoPool {
        /// Why.
        message: String,
    },
}

/// The fields of a stored status that an agent writes.
pub fn ours(status: &StorageVolumeStatus) -> StorageVolumeStatus {
    let done = status.teardown.as_ref().and_then(|teardown| teardown.done.clone());
    StorageVolumeStatus {
        host: None,
        used_by: Vec::new(),
        claimed_by: None,
        teardown: done.map(|done| Teardown { done: Some(done), ..Teardown::default() }),
        conditions: status.conditions.iter().filter(|c| c.type_ != Type::Scheduled.as_str()).cloned().collect(),
        ..status.clone()
    }
}

/// The image is not what the manifest says: somebody must correct one of the two. It is tried again all the same, later and later.
pub const OF_THE_IMAGE: [&str; 7] =
    ["BackingFile", "CapacityTooSmall", "ChecksumMismatch", "Corrupt", "Encrypted", "ExternalData", "WrongFormat"];

struct Verdict {
    phase: VolumePhase,
    ready: Status,
    reason: &'static str,
    message: String,
    stalled: bool,
}

/// The agent's whole part of the status.
pub fn status(
    previous: &StorageVolumeStatus,
    generation: i64,
    goal: Option<&Goal>,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> StorageVolumeStatus {
    let verdict = verdict(goal, outcome);
    let Verdict { phase, ready, reason, message, stalled } = &verdict;
    let blocked = match outcome {
        Outcome::Planned(_, Next::Wait { why: Why::Named(domains), .. }) => {
            Some(format!("domains {} name the file; it is removed when none does", domains.join(", ")))
        }
        Outcome::Planned(..) | Outcome::Failed { .. } | Outcome::Invalid { .. } | Outcome::NoPool { .. } => None,
    };
    let conditions = Builder::new(&previous.conditions, generation, now)
        .set(Type::Ready, *ready, reason, message.clone())
        .set_while(*ready == Status::False && !stalled, Type::Reconciling, reason, message.clone())
        .set_while(*stalled, Type::Stalled, reason, message.clone())
        .set_while(blocked.is_some(), Type::DeletionBlocked, "FileInUse", blocked.unwrap_or_default())
        .build();
    let base = StorageVolumeStatus {
        observed_generation: Some(generation),
        phase: Some(*phase),
        conditions,
        // What was once made known stays, so that its loss is seen.
        path: previous.path.clone(),
        format: previous.format,
        capacity: previous.capacity.clone(),
        allocation: previous.allocation.clone(),
        teardown: ours(previous).teardown,
        ..StorageVolumeStatus::default()
    };
    match outcome {
        Outcome::Planned(seen, next) => planned(base, previous, goal, seen, next),
        Outcome::Failed { .. } | Outcome::Invalid { .. } | Outcome::NoPool { .. } => base,
    }
}

fn planned(
    base: StorageVolumeStatus,
    previous: &StorageVolumeStatus,
    goal: Option<&Goal>,
    seen: &Observed,
    next: &Next,
) -> StorageVolumeStatus {
    let teardown = match (goal, next) {
        (Some(Goal::Vanish { uid, .. }), Next::Done) => {
            Some(Teardown { done: Some(uid.clone()), ..Teardown::default() })
        }
        (Some(_) | None, _) => base.teardown.clone(),
    };
    let base = StorageVolumeStatus { teardown, progress: progress(&seen.job), ..base };
    let File::There { path, image: Ok(image), allocation } = &seen.file else {
        return base;
    };
    let same = base.path.as_ref() == Some(path) && base.capacity == Some(quantity::from_bytes(image.capacity));
    // How much a file takes changes with each write of its guest: alone it is no news.
    let allocation = match (&previous.allocation, same) {
        (Some(known), true) => known.clone(),
        (Some(_) | None, _) => rounded(*allocation),
    };
    StorageVolumeStatus {
        path: Some(path.clone()),
        format: Some(image.format),
        capacity: Some(quantity::from_bytes(image.capacity)),
        allocation: Some(allocation),
        ..base
    }
}

fn verdict(goal: Option<&Goal>, outcome: &Outcome<'_>) -> Verdict {
    let busy =
        |phase, reason, message: String| Verdict { phase, ready: Status::False, reason, message, stalled: false };
    let stalled = |phase, reason, message| Verdict { phase, ready: Status::False, reason, message, stalled: true };
    let (seen, next) = match outcome {
        Outcome::Planned(seen, next) => (seen, next),
        Outcome::Failed { usable: true, reason, message } => {
            return busy(VolumePhase::Resizing, reason, message.clone());
        }
        Outcome::Failed { usable: false, reason, message } => {
            return busy(VolumePhase::Failed, reason, message.clone());
        }
        Outcome::Invalid { reason, message } => return stalled(VolumePhase::Failed, reason, message.clone()),
        Outcome::NoPool { message } => return busy(VolumePhase::Pending, "PoolNotReady", message.clone()),
    };
    if let Some(Goal::Vanish { .. }) = goal {
        return busy(VolumePhase::Terminating, "Terminating", "the host is letting it go".into());
    }
    match next {
        Next::Done => {
            let message = remarks(goal, seen).join("; ");
            Verdict { phase: VolumePhase::Ready, ready: Status::True, reason: "Ready", message, stalled: false }
        }
        Next::Do(Step::Grow(_)) => busy(VolumePhase::Resizing, "Resizing", String::new()),
        Next::Do(_) => busy(VolumePhase::Pending, "Creating", String::new()),
        Next::Wait { why: Why::Import, .. } => busy(VolumePhase::Importing, "Importing", String::new()),
        Next::Wait { why: Why::Retry { reason, message }, .. } if OF_THE_IMAGE.contains(reason) => {
            stalled(VolumePhase::Failed, reason, message.clone())
        }
        Next::Wait { why: Why::Retry { reason, message }, .. } => busy(VolumePhase::Failed, reason, message.clone()),
        Next::Wait { why: Why::Held { reason, message }, .. } => busy(VolumePhase::Resizing, reason, message.clone()),
        Next::Wait { why: Why::Named(_), .. } => busy(VolumePhase::Terminating, "Terminating", String::new()),
        Next::Refuse { reason, message } => {
            let phase = if *reason == "Lost" { VolumePhase::Lost } else { VolumePhase::Failed };
            stalled(phase, reason, message.clone())
        }
    }
}

/// What a user should know of a volume that is ready.
fn remarks(goal: Option<&Goal>, seen: &Observed) -> Vec<String> {
    let mut remarks = Vec::new();
    if let (Some(Goal::Exist(want)), File::There { image: Ok(image), .. }) = (goal, &seen.file)
        && want.capacity.is_some_and(|capacity| capacity < image.capacity)
    {
        remarks.push(format!("it has {} bytes, more than spec.capacity says; a volume is never cut", image.capacity));
    }
    if !seen.left_over.is_empty() {
        let files = seen.left_over.join(", ");
        remarks.push(format!("beside it lie files of earlier volumes of this name, not touched: {files}"));
    }
    remarks
}

/// `42%`, or mebibytes when the server did not tell the size.
fn progress(job: &Job) -> Option<String> {
    match job {
        Job::Running { received, total: Some(total) } if *total > 0 => {
            Some(format!("{}%", (u128::from(*received) * 100 / u128::from(*total)).min(99)))
        }
        Job::Running { received, .. } => Some(format!("{} MiB", received >> 20)),
        Job::None | Job::Failed { .. } => None,
    }
}

/// To mebibytes: less is noise.
fn rounded(bytes: u64) -> Quantity {
    quantity::from_bytes(bytes.div_ceil(1 << 20) << 20)
}

//! What to do next for one VirtualMachine on its host: the smallest change that brings its domain closer to the manifest. Pure.
//!
//! A domain's mark remembers what libvirt forgets, so that any agent can go on where another was killed:
//!
//! ```text
//!            define            start ok              guest shut itself down
//!  (absent) ───────▶ Starting ─────────▶ Started ──────────────────────────▶ StoppedByGuest
//!                       ▲                   │ stop, restart or deletion asked for      │
//!                       │                   ▼                                          │
//!                       ├─────────── Stopping{since} ──▶ (off) ──▶ Stopped ────────────┤
//!                       └──────────── powerState Running, restart, restartPolicy ──────┘
//! ```

pub mod changes;
mod differences;
pub mod overlays;
pub mod power;
pub mod status;
pub mod template;
pub mod uses;
pub mod validate;

pub use validate::{Desired, Invalid, Resolved, Shape, Volume, Waiting, validate};

use crds::TeardownPolicy;
use jiff::Timestamp;
use libvirt_xml::{Domain, Mark};
use std::collections::{BTreeMap, BTreeSet};

/// What the manifest asks for as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// Be as the spec says.
    Exist(Box<Desired>),
    /// Go, in the way that the controller decided.
    Vanish(Vanish),
}

/// What a teardown needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Vanish {
    /// What becomes of the domain.
    pub policy: TeardownPolicy,
    /// UID of the object that goes.
    pub uid: String,
    /// How its guest is shut down.
    pub shutdown: power::Grace,
}

/// What is on the host for one VirtualMachine: one look, one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// No domain of its mark or name.
    Absent,
    /// A domain of its name that is not ours.
    Foreign {
        /// Whose it is, as a sentence.
        whose: String,
    },
    /// A domain with the mark of this cluster, namespace and name.
    Ours(Box<Seen>),
}

/// A domain with our mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The mark, whose uid may be that of an object that is gone.
    pub mark: Mark,
    /// What the next boot gets.
    pub config: Domain,
    /// What the running guest has.
    pub live: Option<Domain>,
    /// Every disk target of the configuration and of the running guest, also those of devices that are not ours.
    pub targets: Vec<String>,
    /// Whether it runs.
    pub state: State,
    /// libvirt's number for the running guest.
    pub id: Option<u32>,
    /// libvirt's autostart flag.
    pub autostart: bool,
    /// Whether libvirt keeps it when it is off.
    pub persistent: bool,
    /// Whether the guest agent is connected.
    pub agent_connected: bool,
    /// When this agent last asked this run of the guest to shut down.
    pub asked: Option<Timestamp>,
    /// When this agent last asked this run of the guest to let go of a disk, by the disk's name.
    pub detaching: BTreeMap<String, Timestamp>,
    /// How often the guest failed lately, as this agent saw it.
    pub failures: Failures,
    /// Files below a disk's own, by that file, as its header says.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Files of disks that cannot be looked into from here: what they lie over nobody can tell.
    pub unseen: BTreeSet<String>,
    /// Overlays that disks have gone on to though the definition does not say so, by the file that it names: libvirt died as it switched.
    pub ahead: BTreeMap<String, String>,
    /// How many snapshots the domain has, and the one that it goes on from.
    pub snapshots: (u32, Option<String>),
    /// The snapshot that is being merged: until it is done the domain may be started by libvirt itself, and its files change.
    pub merging: Option<String>,
}

/// Whether a domain runs, and how it came to be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guest runs.
    Running,
    /// Its processors stand still.
    Paused,
    /// It panicked and is kept as it is.
    Crashed,
    /// It is shutting down.
    ShuttingDown,
    /// It is off.
    Off(Cause),
}

/// How a domain came to be off, as far as libvirt knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The guest shut down.
    Shutdown,
    /// It crashed, was killed, or its process failed.
    Failure,
    /// libvirt does not know (it forgets when it is restarted).
    Unknown,
}

/// Failures of one guest in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many starts ended in failure.
    pub count: u32,
    /// When the last one was seen.
    pub last: Option<Timestamp>,
}

/// One effect on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Define a domain that is not there.
    Define(Box<Domain>),
    /// Bring the owned parts of the definition to this; a guest that runs does not notice.
    Redefine(Box<Domain>),
    /// Write the mark.
    Mark(Mark),
    /// Take the mark off.
    Unmark,
    /// Start the domain.
    Start,
    /// Give the running guest a disk of its definition.
    Attach {
        /// Its name.
        disk: String,
    },
    /// Ask the running guest to let go of a disk.
    Detach {
        /// Its name.
        disk: String,
    },
    /// Ask the guest to shut down.
    AskShutdown(Ask),
    /// Pull the plug.
    Destroy,
    /// Remove the definition.
    Undefine,
    /// Set libvirt's autostart flag.
    SetAutostart(bool),
}

/// Whom to ask for a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The guest agent.
    Agent,
    /// The power button.
    PowerButton,
}

/// The answer: what to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing: all is as it should be.
    Done,
    /// This, then look again.
    Do(Step),
    /// Nothing until then, or until something happens.
    Wait {
        /// When to look again at the latest; absent: when something happens.
        until: Option<Timestamp>,
        /// What for.
        why: Why,
    },
    /// Nothing, until somebody changes something.
    Refuse {
        /// Whose domain it is.
        whose: String,
    },
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Volumes that are not there yet.
    Volumes(Waiting),
    /// The guest, to shut down.
    Shutdown,
    /// The guest, to let go of these disks.
    Detach(Vec<String>),
    /// A pause between failing starts.
    Backoff,
    /// A snapshot that is being merged.
    Snapshot(String),
}

/// The smallest change that brings `seen` closer to `goal`.
pub fn next(goal: &Goal, seen: &Observed, now: Timestamp) -> Next {
    match (&*overlays::kept(goal, seen), seen) {
        (Goal::Exist(_), Observed::Foreign { whose }) => Next::Refuse { whose: whose.clone() },
        (Goal::Exist(want), Observed::Absent) => define(want),
        (Goal::Exist(want), Observed::Ours(seen)) => match &seen.merging {
            Some(snapshot) => Next::Wait { until: None, why: Why::Snapshot(snapshot.clone()) },
            None if seen.mark.owner != want.owner => retake(want, seen),
            None => keep(want, seen, now),
        },
        (Goal::Vanish(_), Observed::Absent | Observed::Foreign { .. }) => Next::Done,
        (Goal::Vanish(vanish), Observed::Ours(seen)) => go(vanish, seen, now),
    }
}

fn define(want: &Desired) -> Next {
    match &want.shape {
        Err(waiting) => Next::Wait { until: None, why: Why::Volumes(waiting.clone()) },
        Ok(shape) => Next::Do(Step::Define(Box::new(changes::new_domain(want, shape)))),
    }
}

/// The domain of an object that is gone, of the same cluster, namespace and name: the shell has read the live object afresh.
fn retake(want: &Desired, seen: &Seen) -> Next {
    Next::Do(Step::Mark(Mark { owner: want.owner.clone(), ..seen.mark.clone() }))
}

fn keep(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    let power = power::next(want, seen, now);
    let autostart = power::autostart(want, seen);
    match power {
        // The flag follows the power: a host that reboots in between must not start what should be off.
        Next::Done | Next::Wait { .. } if seen.autostart != autostart => Next::Do(Step::SetAutostart(autostart)),
        Next::Done | Next::Wait { .. } | Next::Do(_) | Next::Refuse { .. } => power,
    }
}

fn go(vanish: &Vanish, seen: &Seen, now: Timestamp) -> Next {
    if seen.mark.owner.uid != vanish.uid {
        return Next::Done;
    }
    match vanish.policy {
        TeardownPolicy::Keep => Next::Done,
        TeardownPolicy::Orphan => Next::Do(Step::Unmark),
        // A VirtualMachine holds no data of its own: Retain is for its volumes.
        TeardownPolicy::Delete | TeardownPolicy::Retain => match seen.state {
            State::Off(_) => Next::Do(Step::Undefine),
            State::Running | State::Paused | State::Crashed | State::ShuttingDown => {
                power::shut_down(&vanish.shutdown, seen, now)
            }
        },
    }
}

#[cfg(test)]
mod tests;

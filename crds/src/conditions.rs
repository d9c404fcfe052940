//! Conditions as kstatus reads them: `Ready` always there, `Reconciling` and `Stalled` only while true. Pure.

use crate::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// What the spec asks for is so.
    Ready,
    /// Work is under way; only while true.
    Reconciling,
    /// Nothing more happens until the manifest changes; only while true.
    Stalled,
    /// A host was chosen, or why not.
    Scheduled,
    /// All volumes that the machine names are there.
    VolumesReady,
    /// Changes of the manifest wait for the guest's next start; only while true.
    RestartRequired,
    /// The guest agent answers.
    AgentConnected,
    /// Something of the same name on the host is not ours.
    Conflict,
    /// Deletion waits for something that still uses it.
    DeletionBlocked,
    /// The host's libvirt answers.
    LibvirtConnected,
    /// The host can run guests with KVM.
    AccelerationAvailable,
    /// Some hosts of the pool are not ready.
    Degraded,
    /// Less than a tenth of the pool is free on some host.
    NearFull,
}

impl Type {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Ready => "Ready",
            Type::Reconciling => "Reconciling",
            Type::Stalled => "Stalled",
            Type::Scheduled => "Scheduled",
            Type::VolumesReady => "VolumesReady",
            Type::RestartRequired => "RestartRequired",
            Type::AgentConnected => "AgentConnected",
            Type::Conflict => "Conflict",
            Type::DeletionBlocked => "DeletionBlocked",
            Type::LibvirtConnected => "LibvirtConnected",
            Type::AccelerationAvailable => "AccelerationAvailable",
            Type::Degraded => "Degraded",
            Type::NearFull => "NearFull",
        }
    }
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Status {
    /// The text in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::True => "True",
            Status::False => "False",
            Status::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Status::True } else { Status::False }
    }
}

/// Builds one writer's list of conditions, keeping the time of what did not change.
#[derive(Debug)]
pub struct Builder<'a> {
    previous: &'a [Condition],
    generation: i64,
    now: Timestamp,
    built: Vec<Condition>,
}

impl<'a> Builder<'a> {
    /// `previous`: the stored conditions; `generation`: of the object that was looked at.
    pub fn new(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Builder { previous, generation, now, built: Vec::new() }
    }

    /// Adds a condition. `lastTransitionTime` moves only when the status does. The message is cut at 1,024 characters.
    pub fn set(mut self, kind: Type, status: Status, reason: &str, message: impl Into<String>) -> Self {
        let since = find(self.previous, kind)
            .filter(|old| old.status == status.as_str())
            .map_or(Time(self.now), |old| old.last_transition_time.clone());
        let message: String = message.into();
        self.built.push(Condition {
            type_: kind.as_str().into(),
            status: status.as_str().into(),
            reason: reason.into(),
            message: message.chars().take(1024).collect(),
            observed_generation: Some(self.generation),
            last_transition_time: since,
        });
        self
    }

    /// Adds a condition only while `holds`: for those that stand only while true.
    pub fn set_while(self, holds: bool, kind: Type, reason: &str, message: impl Into<String>) -> Self {
        if holds { self.set(kind, Status::True, reason, message) } else { self }
    }

    /// The list, sorted by type, so that equal states serialize equally.
    pub fn build(mut self) -> Vec<Condition> {
        self.built.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.built
    }
}

/// The condition of that type.
pub fn find(conditions: &[Condition], kind: Type) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.as_str())
}

/// Whether the condition is there and true.
pub fn is_true(conditions: &[Condition], kind: Type) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let (early, late) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(20).unwrap());
        let first = Builder::new(&[], 1, early).set(Type::Ready, Status::False, "Starting", "").build();
        let same = Builder::new(&first, 2, late).set(Type::Ready, Status::False, "Waiting", "for a volume").build();
        assert_eq!(same[0].last_transition_time, Time(early));
        let turned = Builder::new(&same, 2, late).set(Type::Ready, Status::True, "Running", "").build();
        assert_eq!(turned[0].last_transition_time, Time(late));
    }
}

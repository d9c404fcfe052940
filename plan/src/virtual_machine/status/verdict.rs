//! A look at a machine in one word: its phase, whether it is ready, and why not. Pure.

use super::{Look, Outcome};
use crate::virtual_machine::power::{self, Power};
use crate::virtual_machine::{Cause, Desired, Goal, Next, Seen, State, Step, Why};
use crds::virtual_machine::MachinePhase;
use libvirt_xml::Run;

/// The summary in one value.
pub(super) struct Verdict {
    pub phase: MachinePhase,
    pub ready: bool,
    pub reason: &'static str,
    pub message: String,
    pub progress: Progress,
}

/// Whether something is still to come.
pub(super) enum Progress {
    /// Nothing.
    Settled,
    /// Work is under way: reason and message.
    UnderWay(&'static str, String),
    /// Nothing, until the manifest changes.
    Stalled,
}

impl Verdict {
    fn ready(phase: MachinePhase, reason: &'static str) -> Self {
        Verdict { phase, ready: true, reason, message: String::new(), progress: Progress::Settled }
    }

    fn busy(phase: MachinePhase, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Verdict { phase, ready: false, reason, message: message.clone(), progress: Progress::UnderWay(reason, message) }
    }

    fn stalled(phase: MachinePhase, reason: &'static str, message: impl Into<String>) -> Self {
        Verdict { phase, ready: false, reason, message: message.into(), progress: Progress::Stalled }
    }
}

pub(super) fn verdict(look: &Look<'_>, domain: Option<&Seen>) -> Verdict {
    let running = domain.is_some_and(|seen| seen.state == State::Running);
    let phase_now = |other: MachinePhase| {
        if running { MachinePhase::Running } else { other }
    };
    let goal = match look.goal {
        Ok(goal) => goal,
        Err(invalid) => {
            return Verdict::stalled(phase_now(MachinePhase::Failed), invalid.reason, invalid.to_string());
        }
    };
    let next = match &look.outcome {
        Outcome::Planned(next) => *next,
        Outcome::Failed { step, message } => {
            return Verdict::busy(phase_now(failed_phase(step)), failed_reason(step), message.clone());
        }
        Outcome::Refused { message } => {
            return Verdict::stalled(phase_now(MachinePhase::Failed), "RefusedByLibvirt", message.clone());
        }
        Outcome::Unreachable { .. } | Outcome::Invalid => {
            return Verdict::busy(MachinePhase::Unknown, "LibvirtUnreachable", "");
        }
    };
    if let Next::Refuse { whose } = next {
        let message = format!("{whose}; rename this VirtualMachine or remove that domain: it is not touched");
        return Verdict::stalled(MachinePhase::Failed, "Conflict", message);
    }
    if let Next::Wait { why: Why::Volumes(waiting), .. } = next
        && waiting.is_stalled()
        && !running
    {
        return Verdict::stalled(MachinePhase::Failed, "VolumeStalled", waiting.to_string());
    }
    match (goal, domain) {
        (Goal::Vanish(_), _) => Verdict::busy(MachinePhase::Terminating, "Terminating", "the host is tearing it down"),
        (Goal::Exist(_), None) => Verdict::busy(MachinePhase::Provisioning, "Provisioning", waiting_for(next)),
        (Goal::Exist(want), Some(seen)) => of_domain(want, seen, next),
    }
}

fn of_domain(want: &Desired, seen: &Seen, next: &Next) -> Verdict {
    let stopping =
        matches!(seen.mark.run, Run::Stopping { .. }) && (want.power == Power::Off || power::restart_asked(want, seen));
    match (want.power, seen.state) {
        (_, State::Running | State::ShuttingDown) if stopping => {
            Verdict::busy(MachinePhase::Stopping, "ShuttingDown", "the guest was asked to shut down")
        }
        (Power::On, State::Running) => of_running(want, next),
        (Power::On, State::ShuttingDown) => {
            Verdict::busy(MachinePhase::Stopping, "ShuttingDown", "the guest is shutting down")
        }
        (Power::Off, State::Running | State::ShuttingDown) => Verdict::busy(MachinePhase::Stopping, "ShuttingDown", ""),
        (_, State::Paused) => Verdict::busy(
            MachinePhase::Paused,
            "Paused",
            "the guest's processors stand still, not by this manifest (virsh suspend, or a disk without space); virsh resume lets them run",
        ),
        (_, State::Crashed) => Verdict::busy(MachinePhase::Crashed, "Crashed", "the guest panicked"),
        (Power::Off, State::Off(_)) => Verdict::ready(MachinePhase::Stopped, "Stopped"),
        (Power::On, State::Off(cause)) => of_stopped(seen, cause, next),
    }
}

/// The guest runs, which is what matters; that a part of the manifest is still on its way is told beside it.
fn of_running(want: &Desired, next: &Next) -> Verdict {
    let progress = match (&want.shape, next) {
        (Err(waiting), _) => Progress::UnderWay("VolumesNotReady", waiting.to_string()),
        (Ok(_), Next::Wait { why: Why::Detach(disks), .. }) => Progress::UnderWay(
            "Detaching",
            format!("the guest has not let go of disk {}; is it still mounted there?", disks.join(", ")),
        ),
        (Ok(_), Next::Done | Next::Do(_) | Next::Wait { .. } | Next::Refuse { .. }) => Progress::Settled,
    };
    Verdict { progress, ..Verdict::ready(MachinePhase::Running, "Running") }
}

fn of_stopped(seen: &Seen, cause: Cause, next: &Next) -> Verdict {
    match (&seen.mark.run, next) {
        (Run::StoppedByGuest, Next::Done) => Verdict::ready(MachinePhase::Stopped, "StoppedByGuest"),
        (Run::Started, Next::Done) => {
            let how = if cause == Cause::Failure { "crashed or was killed" } else { "stopped, nobody knows how" };
            let message = format!(
                "the guest {how}, and restartPolicy is Never; annotate it with virtfleet.dev/restartedAt to start it"
            );
            Verdict::busy(MachinePhase::Crashed, "Crashed", message)
        }
        (_, Next::Wait { why: Why::Backoff, .. }) => {
            Verdict::busy(MachinePhase::Crashed, "CrashLoop", "the guest keeps failing; the next start waits")
        }
        (_, next) => Verdict::busy(MachinePhase::Starting, "Starting", waiting_for(next)),
    }
}

fn waiting_for(next: &Next) -> String {
    match next {
        Next::Wait { why: Why::Volumes(waiting), .. } => waiting.to_string(),
        Next::Wait { why: Why::Snapshot(name), .. } => format!("snapshot {name} is being merged"),
        Next::Wait { why: Why::Shutdown | Why::Backoff | Why::Detach(_), .. }
        | Next::Done
        | Next::Do(_)
        | Next::Refuse { .. } => String::new(),
    }
}

fn failed_phase(step: &Step) -> MachinePhase {
    match step {
        Step::Define(_) => MachinePhase::Provisioning,
        Step::Redefine(_) | Step::Mark(_) | Step::Unmark | Step::Start | Step::SetAutostart(_) => {
            MachinePhase::Starting
        }
        Step::Attach { .. } | Step::Detach { .. } => MachinePhase::Running,
        Step::AskShutdown(_) | Step::Destroy => MachinePhase::Stopping,
        Step::Undefine => MachinePhase::Terminating,
    }
}

fn failed_reason(step: &Step) -> &'static str {
    match step {
        Step::Define(_) | Step::Redefine(_) => "DefineFailed",
        Step::Mark(_) | Step::Unmark => "MarkFailed",
        Step::Start => "StartFailed",
        Step::Attach { .. } => "AttachFailed",
        Step::Detach { .. } => "DetachFailed",
        Step::AskShutdown(_) => "ShutdownFailed",
        Step::Destroy => "DestroyFailed",
        Step::Undefine => "UndefineFailed",
        Step::SetAutostart(_) => "AutostartFailed",
    }
}

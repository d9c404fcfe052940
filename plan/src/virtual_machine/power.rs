//! Whether a machine's domain should be started, stopped or left, and what is written into its mark before and after. Pure.

use super::{Ask, Cause, Desired, Failures, Next, Seen, State, Step, Why, changes};
use jiff::{SignedDuration, Timestamp};
use libvirt_xml::{Mark, Run};

/// Whether the guest should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It should run.
    On,
    /// It should be off.
    Off,
}

/// What happens after the guest stopped unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start it again.
    Always,
    /// Start it again unless it shut itself down.
    OnFailure,
    /// Leave it.
    Never,
}

/// How long a guest may take to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// How long.
    pub timeout: SignedDuration,
    /// Whether the plug is pulled then.
    pub destroy: bool,
}

/// A guest that is still booting drops the request: it is repeated.
pub const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(20);
/// First pause between failing starts; doubled each time.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// What to do next about the power of a domain that is ours.
pub fn next(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    match (want.power, seen.state) {
        (Power::On, State::Off(cause)) => revive(want, seen, cause, now),
        (Power::Off, State::Off(_)) => rest(want, seen),
        (Power::On, State::Running) if restart_asked(want, seen) => shut_down(&want.shutdown, seen, now),
        (Power::On, State::Running) => run(want, seen, now),
        // Somebody paused it, its disk is full, or it panicked: its state is worth keeping; status tells.
        (Power::On, State::Paused | State::Crashed | State::ShuttingDown) => Next::Done,
        (Power::Off, State::Running | State::Paused | State::Crashed | State::ShuttingDown) => {
            shut_down(&want.shutdown, seen, now)
        }
    }
}

/// Whether libvirt should start the domain with the host.
pub fn autostart(want: &Desired, seen: &Seen) -> bool {
    want.power == Power::On && want.autostart && seen.mark.run != Run::StoppedByGuest && seen.persistent
}

/// Whether the restart annotation has a value that was not acted upon.
pub fn restart_asked(want: &Desired, seen: &Seen) -> bool {
    want.restarted_at.is_some() && want.restarted_at != seen.mark.restarted_at
}

/// Whether a domain that we hold for off is on, its processors standing still: so libvirt merges a snapshot of one that is off.
pub fn is_merged_by_libvirt(run: Run, state: State) -> bool {
    let off = match run {
        Run::Stopped | Run::StoppedByGuest => true,
        Run::Starting | Run::Started | Run::Stopping { .. } => false,
    };
    off && state == State::Paused
}

/// What to do for a guest that runs as it should.
fn run(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    match seen.mark.run {
        Run::Started => changes::live(want, seen, now),
        // The wish to stop was taken back, but the guest may still follow it.
        Run::Stopping { since } if now < since + ASK_AGAIN => {
            Next::Wait { until: Some(since + ASK_AGAIN), why: Why::Shutdown }
        }
        Run::Starting | Run::Stopped | Run::StoppedByGuest | Run::Stopping { .. } => mark(seen, Run::Started),
    }
}

/// What to do for a guest that is off and should be off.
fn rest(want: &Desired, seen: &Seen) -> Next {
    if seen.mark.run != Run::Stopped {
        return mark(seen, Run::Stopped);
    }
    changes::pending(want, seen).map_or(Next::Done, |domain| Next::Do(Step::Redefine(Box::new(domain))))
}

/// What to do for a guest that is off and should run.
fn revive(want: &Desired, seen: &Seen, cause: Cause, now: Timestamp) -> Next {
    match seen.mark.run {
        Run::Starting => start(want, seen, now),
        Run::Stopped | Run::Stopping { .. } => mark_starting(want, seen),
        Run::Started | Run::StoppedByGuest if restart_asked(want, seen) => mark_starting(want, seen),
        Run::StoppedByGuest if want.restart == Restart::Always => mark_starting(want, seen),
        Run::StoppedByGuest => Next::Done,
        Run::Started => match (want.restart, cause) {
            (Restart::Always, _) | (Restart::OnFailure, Cause::Failure | Cause::Unknown) => mark_starting(want, seen),
            (Restart::OnFailure | Restart::Never, Cause::Shutdown) => mark(seen, Run::StoppedByGuest),
            (Restart::Never, Cause::Failure | Cause::Unknown) => Next::Done,
        },
    }
}

fn start(want: &Desired, seen: &Seen, now: Timestamp) -> Next {
    if let Err(waiting) = &want.shape {
        return Next::Wait { until: None, why: Why::Volumes(waiting.clone()) };
    }
    if let Some(until) = pause_until(seen.failures).filter(|until| now < *until) {
        return Next::Wait { until: Some(until), why: Why::Backoff };
    }
    match changes::pending(want, seen).or_else(|| changes::signed_anew(seen)) {
        Some(domain) => Next::Do(Step::Redefine(Box::new(domain))),
        None => Next::Do(Step::Start),
    }
}

/// Until when a guest that keeps failing is left off; its first failure costs no pause.
fn pause_until(failures: Failures) -> Option<Timestamp> {
    let doublings = failures.count.checked_sub(2)?.min(8);
    let pause = FIRST_PAUSE.checked_mul(1 << doublings)?.min(LONGEST_PAUSE);
    Some(failures.last? + pause)
}

/// Brings a running guest to off: the wish is written down first, so that whoever goes on knows that it was ours and since when.
pub fn shut_down(grace: &Grace, seen: &Seen, now: Timestamp) -> Next {
    let Run::Stopping { since } = seen.mark.run else {
        return mark(seen, Run::Stopping { since: now });
    };
    let deadline = since + grace.timeout;
    // A guest that panicked hears nothing.
    if seen.state == State::Crashed || (grace.destroy && now >= deadline) {
        return Next::Do(Step::Destroy);
    }
    let again = seen.asked.map(|asked| asked + ASK_AGAIN);
    if let Some(again) = again.filter(|again| now < *again) {
        let until = if grace.destroy { again.min(deadline) } else { again };
        return Next::Wait { until: Some(until), why: Why::Shutdown };
    }
    Next::Do(Step::AskShutdown(if seen.agent_connected && seen.asked.is_none() {
        Ask::Agent
    } else {
        Ask::PowerButton
    }))
}

fn mark(seen: &Seen, run: Run) -> Next {
    Next::Do(Step::Mark(Mark { run, ..seen.mark.clone() }))
}

/// From here on the start counts as the answer to the annotation.
fn mark_starting(want: &Desired, seen: &Seen) -> Next {
    let restarted_at = want.restarted_at.clone().or_else(|| seen.mark.restarted_at.clone());
    Next::Do(Step::Mark(Mark { run: Run::Starting, restarted_at, ..seen.mark.clone() }))
}

//! A VirtualMachine on this host: resolve, observe, plan, execute, and again until nothing is left to do; then report.

mod execute;
pub mod memory;
pub mod observe;
mod resolve;

use crate::context::{Context, MANAGER};
use crds::virtual_machine::{VirtualMachine, VirtualMachineStatus};
use crds::{TeardownPolicy, virtual_machine as api};
use execute::Failure;
use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use libvirt::Kind;
use observe::Sight;
use plan::virtual_machine::overlays;
use plan::virtual_machine::power::is_merged_by_libvirt;
use plan::virtual_machine::status::{self, Guest, Look, Outcome};
use plan::virtual_machine::{Desired, Goal, Invalid, Next, Observed, Resolved, Step, Vanish, Why, next, validate};
use shell::Error;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::sync::Arc;
use std::time::Instant;

/// Effects of one pass at most: a plan that needs more is wrong.
const EFFECTS: usize = 16;
/// A guest that has just booted has no address yet.
const ADDRESS_SOON: SignedDuration = SignedDuration::from_secs(15);

/// How far a pass came.
struct Reached {
    seen: Option<Observed>,
    end: End,
}

/// Where a pass ended.
enum End {
    Planned(Next),
    Failed(Step, libvirt::Error),
    Refused(String),
    Unreachable(String),
    /// What was read is no longer so.
    Stale,
}

/// One pass.
pub async fn pass(vm: Arc<VirtualMachine>, context: Arc<Context>) -> Result<Case, Error> {
    let api: Api<VirtualMachine> = beside(&context.client, &*vm);
    if vm.metadata.deletion_timestamp.is_some() && vanish(&vm).is_none() {
        // The controller has not decided yet how it goes.
        return Ok(Case::Converged);
    }
    let _turn = context.lanes.turn(&vm.namespace().unwrap_or_default(), &vm.name_any()).await;
    let resolved = resolve::resolve(&context, &vm).await?;
    let goal = resolved.as_ref().map(|resolved| goal(&vm, resolved));
    let reached = match &goal {
        None => Reached { seen: None, end: End::Unreachable("libvirt has not answered yet".into()) },
        Some(Ok(goal)) => run(&context, &api, &vm, goal).await,
        Some(Err(_)) => look(&context, &vm).await,
    };
    report(&context, &api, &vm, goal.as_ref(), reached).await
}

fn goal(vm: &VirtualMachine, resolved: &Resolved) -> Result<Goal, Invalid> {
    match vanish(vm) {
        Some(vanish) => Ok(Goal::Vanish(vanish)),
        None => validate(vm, resolved).map(|want: Desired| Goal::Exist(Box::new(want))),
    }
}

/// How the machine goes, when the controller has decided that for this very object.
fn vanish(vm: &VirtualMachine) -> Option<Vanish> {
    vm.metadata.deletion_timestamp.as_ref()?;
    let teardown = vm.status.as_ref()?.teardown.as_ref()?;
    let uid = teardown.uid.clone().filter(|uid| Some(uid) == vm.metadata.uid.as_ref())?;
    let policy: TeardownPolicy = teardown.policy?;
    let shutdown: &api::Shutdown = &vm.spec.shutdown;
    Some(Vanish { policy, uid, shutdown: plan::virtual_machine::validate::grace(shutdown) })
}

/// Looks only.
async fn look(context: &Context, vm: &VirtualMachine) -> Reached {
    match observe::observe(context, vm).await {
        Ok(sight) => Reached { seen: Some(sight.observed), end: End::Planned(Next::Done) },
        Err(error) => Reached { seen: None, end: End::Unreachable(error.to_string()) },
    }
}

/// One effect, then look again.
async fn run(context: &Context, api: &Api<VirtualMachine>, vm: &VirtualMachine, goal: &Goal) -> Reached {
    let (mut seen, mut last) = (None, None);
    for _ in 0..EFFECTS {
        let sight = match observe::observe(context, vm).await {
            Ok(sight) => sight,
            Err(error) => return Reached { seen, end: End::Unreachable(error.to_string()) },
        };
        let answer = next(goal, &sight.observed, Timestamp::now());
        let Next::Do(step) = answer else {
            return Reached { seen: Some(sight.observed), end: End::Planned(answer) };
        };
        if must_be_fresh(&step, &sight) && !is_fresh(api, vm).await {
            return Reached { seen: Some(sight.observed), end: End::Stale };
        }
        tell_drift(context, vm, goal, &step, &sight).await;
        let done = execute::execute(context, vm, &step, &sight).await;
        seen = Some(sight.observed);
        match done {
            Ok(()) => last = Some(step),
            Err(Failure::Refused(message)) => return Reached { seen, end: End::Refused(message) },
            Err(Failure::Libvirt(error)) if error.kind == Kind::Gone => {
                return Reached { seen, end: End::Unreachable(error.to_string()) };
            }
            Err(Failure::Libvirt(error)) => return Reached { seen, end: End::Failed(step, error) },
        }
    }
    let message = format!("{EFFECTS} effects and no end");
    let error = libvirt::Error { act: "bring the domain to the manifest", kind: Kind::Other, message };
    Reached { seen, end: last.map_or(End::Stale, |step| End::Failed(step, error)) }
}

/// Somebody else changed what is ours in the definition: users are told before it is put right, for afterwards nothing shows it.
async fn tell_drift(context: &Context, vm: &VirtualMachine, goal: &Goal, step: &Step, sight: &Sight) {
    let goal = overlays::kept(goal, &sight.observed);
    let (Step::Redefine(_), Goal::Exist(want), Observed::Ours(seen)) = (step, &*goal, &sight.observed) else { return };
    let drift = plan::virtual_machine::changes::drift(want, seen);
    if !drift.is_empty() {
        context.events.warn(vm, "DriftCorrected", &drift.join("; ")).await;
    }
}

/// What cannot be taken back is done only on a manifest that was read just now.
fn must_be_fresh(step: &Step, sight: &Sight) -> bool {
    match step {
        Step::Define(_) | Step::Unmark | Step::Destroy | Step::Undefine | Step::Attach { .. } | Step::Detach { .. } => {
            true
        }
        // Taking over the domain of an object that is gone.
        Step::Mark(mark) => match &sight.observed {
            Observed::Ours(seen) => seen.mark.owner != mark.owner,
            Observed::Absent | Observed::Foreign { .. } => false,
        },
        Step::Redefine(_) | Step::Start | Step::AskShutdown(_) | Step::SetAutostart(_) => false,
    }
}

async fn is_fresh(api: &Api<VirtualMachine>, vm: &VirtualMachine) -> bool {
    let binding = |vm: &VirtualMachine| vm.status.as_ref().and_then(|status| status.host.clone());
    match api.get_opt(&vm.name_any()).await {
        Ok(Some(fresh)) => {
            fresh.uid() == vm.uid()
                && fresh.metadata.generation == vm.metadata.generation
                && binding(&fresh) == binding(vm)
                && vanish(&fresh) == vanish(vm)
        }
        Ok(None) => false,
        Err(error) => {
            tracing::warn!("{}: not sure that it is still so: {error}", vm.name_any());
            false
        }
    }
}

async fn report(
    context: &Context,
    api: &Api<VirtualMachine>,
    vm: &VirtualMachine,
    goal: Option<&Result<Goal, Invalid>>,
    reached: Reached,
) -> Result<Case, Error> {
    if let (End::Unreachable(_), Some(until)) = (&reached.end, context.settles_until()) {
        return Ok(Case::Until(until));
    }
    if context.host_object().is_none() {
        // Whoever has no Host is lost, says the controller: two would write in turns.
        return Ok(Case::Dependency);
    }
    if is_merged_off(&reached) {
        // Only libvirt has it on, for a while.
        return Ok(Case::Dependency);
    }
    let none = VirtualMachineStatus::default();
    let previous = vm.status.as_ref().unwrap_or(&none);
    let guest = guest(context, reached.seen.as_ref()).await;
    let unknown = Err(Invalid { field: "", reason: "LibvirtUnreachable", message: String::new() });
    let goal = goal.unwrap_or(&unknown);
    let outcome = match &reached.end {
        End::Stale => return Ok(Case::Until(Timestamp::now() + SignedDuration::from_secs(1))),
        End::Planned(_) if goal.is_err() => Outcome::Invalid,
        End::Planned(next) => Outcome::Planned(next),
        End::Failed(step, error) => Outcome::Failed { step, message: error.to_string() },
        End::Refused(message) => Outcome::Refused { message: message.clone() },
        End::Unreachable(message) => Outcome::Unreachable { message: message.clone() },
    };
    let now = Timestamp::now();
    let look = Look {
        previous,
        generation: vm.metadata.generation.unwrap_or_default(),
        goal: goal.as_ref(),
        seen: reached.seen.as_ref(),
        outcome,
        guest: guest.as_ref(),
        now,
    };
    let wanted = status::status(&look);
    let may_pass = status::may_pass(&look, &wanted);
    if let Some(left) = context.passing.hold(&vm.uid().unwrap_or_default(), may_pass, Instant::now()) {
        let until = now + SignedDuration::try_from(left).unwrap_or_default();
        return Ok(sooner(ended(reached.end, guest.as_ref(), &wanted)?, until));
    }
    if apply(api, MANAGER, vm, (&status::ours(previous), &wanted), &context.metrics).await? {
        context.events.turned(vm, &previous.conditions, &wanted.conditions).await;
    }
    if wanted.disks != previous.disks {
        context.host_changed.notify_one();
    }
    ended(reached.end, guest.as_ref(), &wanted)
}

/// When to look again.
fn ended(end: End, guest: Option<&Guest>, wanted: &VirtualMachineStatus) -> Result<Case, Error> {
    match end {
        End::Planned(next) => Ok(case(&next, guest, wanted)),
        End::Refused(_) | End::Stale => Ok(Case::Converged),
        End::Failed(step, error) => Err(Error::Passing { act: execute::verb(&step), message: error.to_string() }),
        // The connection's return asks for a look.
        End::Unreachable(_) => Ok(Case::Dependency),
    }
}

/// Whether the domain is off for everybody but libvirt, which merges a snapshot of it.
fn is_merged_off(reached: &Reached) -> bool {
    match (&reached.end, &reached.seen) {
        (End::Planned(Next::Wait { why: Why::Snapshot(_), .. }), Some(Observed::Ours(seen))) => {
            is_merged_by_libvirt(seen.mark.run, seen.state)
        }
        _ => false,
    }
}

/// The same, but not later than that.
fn sooner(case: Case, limit: Timestamp) -> Case {
    match case {
        Case::Until(until) => Case::Until(until.min(limit)),
        Case::Converged | Case::Dependency => Case::Until(limit),
        Case::Conflict | Case::Away | Case::Transient => case,
    }
}

fn case(next: &Next, guest: Option<&Guest>, status: &VirtualMachineStatus) -> Case {
    match next {
        Next::Wait { until: Some(until), .. } => Case::Until(*until),
        Next::Wait { until: None, why: Why::Volumes(_) } => Case::Dependency,
        Next::Wait { until: None, why: Why::Shutdown | Why::Backoff | Why::Detach(_) | Why::Snapshot(_) }
        | Next::Refuse { .. }
        | Next::Do(_) => Case::Dependency,
        Next::Done if guest.is_some() && status.interfaces.iter().any(|nic| nic.addresses.is_empty()) => {
            Case::Until(Timestamp::now() + ADDRESS_SOON)
        }
        Next::Done => Case::Converged,
    }
}

async fn guest(context: &Context, seen: Option<&Observed>) -> Option<Guest> {
    match seen {
        Some(Observed::Ours(seen)) if seen.agent_connected && seen.id.is_some() => {
            Some(context.guests.ask(context, &seen.config.uuid).await)
        }
        Some(Observed::Ours(_) | Observed::Absent | Observed::Foreign { .. }) | None => None,
    }
}

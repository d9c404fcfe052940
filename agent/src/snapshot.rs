//! A Snapshot on the host of its machine: observe, plan, execute, and again until nothing is left to do; then report.

pub mod attempts;
pub mod behind;
mod execute;
mod merged;
pub mod observe;
pub mod poll;

use crate::context::{Context, MANAGER};
use crds::TeardownPolicy;
use crds::snapshot::{Snapshot, SnapshotStatus};
use crds::virtual_machine::VirtualMachine;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use plan::snapshot::concerned;
use plan::snapshot::status::{self, Look, Outcome};
use plan::snapshot::{Goal, Next, Reason, Step, next, validate};
use shell::Error;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Effects of one pass at most: an overlay for each of 64 disks, made and thrown away.
const EFFECTS: usize = 160;

/// One pass.
pub async fn pass(snapshot: Arc<Snapshot>, context: Arc<Context>) -> Result<Case, Error> {
    let goal = match goal(&snapshot) {
        // The controller has not decided yet how it goes.
        None => return Ok(Case::Converged),
        Some(Ok(goal)) => goal,
        Some(Err(why)) => {
            report(&context, &snapshot, None, Outcome::Invalid(&why), &BTreeMap::new()).await?;
            return Ok(Case::Converged);
        }
    };
    let _turn = context.lanes.turn(&snapshot.namespace().unwrap_or_default(), &snapshot.spec.virtual_machine).await;
    for effects in 0..EFFECTS {
        let sight = match observe::observe(&context, &snapshot).await {
            Ok(sight) => sight,
            Err(error) => return unreachable(&context, &snapshot, &goal, error.to_string()).await,
        };
        let answer = next(&goal, &sight.observed, Timestamp::now());
        let Next::Do(step) = answer else {
            if effects > 0 {
                tell_others(&context, &snapshot);
            }
            let outcome = Outcome::Planned(&sight.observed, &answer);
            report(&context, &snapshot, Some(&goal), outcome, &sight.sizes).await?;
            return Ok(case(&answer));
        };
        if must_be_fresh(&step) && !is_fresh(&context, &snapshot).await? {
            return Ok(Case::Until(Timestamp::now() + SignedDuration::from_secs(1)));
        }
        if let Err(error) = execute::execute(&context, &snapshot, step, &sight).await {
            if matches!(goal, Goal::Vanish { .. }) {
                let blocked = Next::Blocked { until: None, why: Reason::new("RemovalFailed", error.to_string()) };
                let outcome = Outcome::Planned(&sight.observed, &blocked);
                report(&context, &snapshot, Some(&goal), outcome, &sight.sizes).await?;
            }
            return Err(error);
        }
    }
    Err(Error::Passing { act: "take the snapshot", message: format!("{EFFECTS} effects and no end") })
}

fn goal(snapshot: &Snapshot) -> Option<Result<Goal, Reason>> {
    if snapshot.metadata.deletion_timestamp.is_none() {
        return Some(validate(snapshot).map(Goal::Exist));
    }
    let (policy, uid) = vanish(snapshot)?;
    Some(Ok(Goal::Vanish { policy, uid, name: snapshot.name_any() }))
}

/// How it goes, when the controller has decided that for this very object.
pub fn vanish(snapshot: &Snapshot) -> Option<(TeardownPolicy, String)> {
    snapshot.metadata.deletion_timestamp.as_ref()?;
    let teardown = snapshot.status.as_ref()?.teardown.as_ref()?;
    let uid = teardown.uid.clone().filter(|uid| Some(uid) == snapshot.metadata.uid.as_ref())?;
    Some((teardown.policy?, uid))
}

/// Making a blank file is the one thing that needs no more than the manifest as it was seen.
fn must_be_fresh(step: &Step) -> bool {
    match step {
        Step::Prepare { .. } => false,
        Step::Discard { .. } | Step::Take { .. } | Step::Record { .. } | Step::Claim { .. } => true,
        Step::Merge
        | Step::Drop { .. }
        | Step::Settle
        | Step::Mend { .. }
        | Step::Clear { .. }
        | Step::Strike
        | Step::Forget => true,
    }
}

async fn is_fresh(context: &Context, snapshot: &Snapshot) -> Result<bool, Error> {
    let api: Api<Snapshot> = beside(&context.client, snapshot);
    let fresh = api.get_opt(&snapshot.name_any()).await.map_err(Error::api("read the snapshot afresh"))?;
    let binding = |snapshot: &Snapshot| snapshot.status.as_ref().and_then(|status| status.host.clone());
    Ok(fresh.is_some_and(|fresh| {
        fresh.uid() == snapshot.uid() && binding(&fresh) == binding(snapshot) && goal(&fresh) == goal(snapshot)
    }))
}

/// Asks for a look at the machine and at those of its other snapshots that wait or stand next to this one: what follows what has changed.
fn tell_others(context: &Context, snapshot: &Snapshot) {
    let (namespace, name) = (snapshot.namespace().unwrap_or_default(), snapshot.name_any());
    let concerned =
        |other: &Snapshot| other.name_any() != name && (concerned::waits(other) || concerned::is_beside(other, &name));
    push_of_machine(context, &namespace, &snapshot.spec.virtual_machine, concerned);
    context.queues.machines.push(ObjectRef::<VirtualMachine>::new(&snapshot.spec.virtual_machine).within(&namespace));
}

/// Asks for a look at those snapshots of a machine.
pub fn push_of_machine(context: &Context, namespace: &str, machine: &str, which: impl Fn(&Snapshot) -> bool) {
    let all = context.stores.snapshots.state();
    let of = |s: &&Arc<Snapshot>| {
        s.namespace().as_deref() == Some(namespace) && s.spec.virtual_machine == machine && which(s)
    };
    context.queues.snapshots.push_all(all.iter().filter(of));
}

async fn unreachable(context: &Context, snapshot: &Snapshot, goal: &Goal, message: String) -> Result<Case, Error> {
    if let Some(until) = context.settles_until() {
        return Ok(Case::Until(until));
    }
    report(context, snapshot, Some(goal), Outcome::Unreachable { message }, &BTreeMap::new()).await?;
    // The connection's return asks for a look.
    Ok(Case::Dependency)
}

fn case(next: &Next) -> Case {
    match next {
        Next::Done | Next::Do(_) => Case::Converged,
        Next::Wait { until: Some(until), .. } | Next::Blocked { until: Some(until), .. } => Case::Until(*until),
        // Whatever it waits for is told by an event, or found by the look for snapshots.
        Next::Wait { until: None, .. } | Next::Blocked { until: None, .. } | Next::Refuse(_) => Case::Dependency,
    }
}

async fn report(
    context: &Context,
    snapshot: &Snapshot,
    goal: Option<&Goal>,
    outcome: Outcome<'_>,
    sizes: &BTreeMap<String, u64>,
) -> Result<(), Error> {
    let api: Api<Snapshot> = beside(&context.client, snapshot);
    let none = SnapshotStatus::default();
    let previous = snapshot.status.as_ref().unwrap_or(&none);
    let generation = snapshot.metadata.generation.unwrap_or_default();
    let wanted = status::status(&Look { previous, generation, goal, outcome, sizes, now: Timestamp::now() });
    if apply(&api, MANAGER, snapshot, (&status::ours(previous), &wanted), &context.metrics).await? {
        context.events.turned(snapshot, &previous.conditions, &wanted.conditions).await;
    }
    Ok(())
}

//! The plan against a model of a host that does what libvirt does. The model stands for libvirt itself only here, where each effect
//! must be followed by a crash; the `libvirt` crate and the stories are tested on the real one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::power::{Grace, Power, Restart};
use super::validate::{DiskShape, Shape, Waiting};
use super::*;
use jiff::SignedDuration;
use libvirt_xml::{Accelerator, Cpu, DiskFormat, Owner, Run};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn owner(uid: &str) -> Owner {
    Owner { cluster: "c".into(), namespace: "shop".into(), name: "web".into(), uid: uid.into() }
}

fn want(power: Power) -> Desired {
    Desired {
        owner: owner("new"),
        name: "shop.web".into(),
        power,
        restart: Restart::OnFailure,
        restarted_at: None,
        shutdown: Grace { timeout: SignedDuration::from_secs(60), destroy: true },
        autostart: true,
        shape: Ok(shape(1024)),
    }
}

fn shape(memory_mib: u64) -> Shape {
    Shape {
        arch: "x86_64".into(),
        accelerator: Accelerator::Emulation,
        vcpus: 1,
        cpu: Cpu::HostModel,
        memory_kib: memory_mib * 1024,
        kernel: None,
        disks: vec![DiskShape {
            name: "root".into(),
            file: "/pool/shop.web-root-0a1b2c3d.qcow2".into(),
            format: DiskFormat::Qcow2,
            boot_order: None,
            read_only: false,
        }],
        interfaces: Vec::new(),
        console_log: "/log/shop.web.log".into(),
        guest_agent: false,
    }
}

/// One domain on a model host, and how often each kind of effect was carried out.
#[derive(Clone, Debug)]
struct Model {
    domain: Option<Seen>,
    /// Whether the guest answers a request to shut down.
    obeys: bool,
    counts: BTreeMap<&'static str, u32>,
}

impl Model {
    fn empty() -> Model {
        Model { domain: None, obeys: true, counts: BTreeMap::new() }
    }

    fn with(mark: Mark, state: State) -> Model {
        let mut config = changes::new_domain(&want(Power::On), &shape(1024));
        config.mark = Some(mark.clone());
        let live = (!matches!(state, State::Off(_))).then(|| config.clone());
        let seen = Seen {
            mark,
            id: live.as_ref().map(|_| 7),
            live,
            targets: config.disks.iter().map(|d| d.target.clone()).collect(),
            config,
            state,
            autostart: false,
            persistent: true,
            agent_connected: false,
            asked: None,
            failures: Failures::default(),
        };
        Model { domain: Some(seen), ..Model::empty() }
    }

    fn observe(&self) -> Observed {
        self.domain.clone().map_or(Observed::Absent, |seen| Observed::Ours(Box::new(seen)))
    }

    fn execute(&mut self, step: &Step, now: Timestamp) {
        let name = match step {
            Step::Define(domain) => {
                assert!(self.domain.is_none(), "defined over a domain");
                let run = State::Off(Cause::Unknown);
                let mark = domain.mark.clone().unwrap();
                let mut defined = Model::with(mark, run);
                let seen = defined.domain.as_mut().unwrap();
                seen.config = (**domain).clone();
                self.domain = defined.domain;
                "define"
            }
            Step::Redefine(domain) => {
                let seen = self.seen();
                assert!(matches!(seen.state, State::Off(_)), "redefined while it runs");
                seen.config = (**domain).clone();
                "redefine"
            }
            Step::Mark(mark) => {
                self.seen().mark = mark.clone();
                "mark"
            }
            Step::Unmark => {
                self.domain = None;
                "unmark"
            }
            Step::Start => {
                let seen = self.seen();
                assert!(matches!(seen.state, State::Off(_)), "started twice");
                (seen.state, seen.live, seen.id) = (State::Running, Some(seen.config.clone()), Some(8));
                "start"
            }
            Step::AskShutdown(_) => {
                let obeys = self.obeys;
                let seen = self.seen();
                seen.asked = Some(now);
                if obeys {
                    (seen.state, seen.live, seen.id) = (State::Off(Cause::Shutdown), None, None);
                }
                "ask"
            }
            Step::Destroy => {
                let seen = self.seen();
                assert!(!matches!(seen.state, State::Off(_)));
                (seen.state, seen.live, seen.id) = (State::Off(Cause::Failure), None, None);
                "destroy"
            }
            Step::Undefine => {
                assert!(matches!(self.seen().state, State::Off(_)), "undefined while it runs");
                self.domain = None;
                "undefine"
            }
            Step::SetAutostart(on) => {
                self.seen().autostart = *on;
                "autostart"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }

    fn seen(&mut self) -> &mut Seen {
        self.domain.as_mut().expect("a domain")
    }

    /// What an agent forgets when it is killed.
    fn crash(&mut self) {
        if let Some(seen) = &mut self.domain {
            (seen.asked, seen.failures) = (None, Failures::default());
        }
    }

    /// Runs the plan until it has nothing to do, letting time pass while it waits.
    fn settle(&mut self, goal: &Goal, crash_after_every_effect: bool) -> Next {
        let mut time = now();
        for _ in 0..256 {
            time += SignedDuration::from_secs(1);
            match next(goal, &self.observe(), time) {
                Next::Do(step) => self.execute(&step, time),
                Next::Wait { until: Some(until), .. } => {
                    assert!(until > time, "waits for what has passed");
                    time = until;
                    continue;
                }
                last @ (Next::Done | Next::Wait { until: None, .. } | Next::Refuse { .. }) => {
                    return last;
                }
            }
            if crash_after_every_effect {
                self.crash();
            }
        }
        panic!("does not converge: {self:?}");
    }
}

fn exist(want: &Desired) -> Goal {
    Goal::Exist(Box::new(want.clone()))
}

fn mark(run: Run) -> Mark {
    Mark { owner: owner("new"), domain: "new".into(), run, restarted_at: None }
}

#[test]
fn a_new_machine_is_defined_started_and_marked_as_started() {
    let mut host = Model::empty();
    assert_eq!(host.settle(&exist(&want(Power::On)), false), Next::Done);
    let seen = host.seen().clone();
    assert_eq!((seen.state, seen.mark.run, seen.autostart), (State::Running, Run::Started, true));
    assert_eq!(host.counts, BTreeMap::from([("define", 1), ("start", 1), ("mark", 1), ("autostart", 1)]));
}

#[test]
fn a_machine_that_should_be_off_is_defined_and_never_started() {
    let mut host = Model::empty();
    host.settle(&exist(&want(Power::Off)), false);
    assert_eq!(host.counts, BTreeMap::from([("define", 1)]));
}

#[test]
fn a_foreign_domain_of_the_same_name_is_refused_and_a_teardown_leaves_it() {
    let foreign = Observed::Foreign { whose: "somebody's".into() };
    assert!(matches!(next(&exist(&want(Power::On)), &foreign, now()), Next::Refuse { .. }));
    for policy in [TeardownPolicy::Delete, TeardownPolicy::Orphan, TeardownPolicy::Keep, TeardownPolicy::Retain] {
        assert_eq!(next(&vanish(policy), &foreign, now()), Next::Done);
    }
}

fn vanish(policy: TeardownPolicy) -> Goal {
    Goal::Vanish(Vanish { policy, uid: "new".into(), shutdown: want(Power::On).shutdown })
}

#[test]
fn nothing_is_defined_before_its_volumes_are_there() {
    let mut wanted = want(Power::On);
    wanted.shape = Err(Waiting(vec![("root".into(), "importing".into())]));
    let mut host = Model::empty();
    assert!(matches!(host.settle(&exist(&wanted), false), Next::Wait { why: Why::Volumes(_), .. }));
    assert!(host.counts.is_empty());
}

#[test]
fn a_running_guest_stays_when_its_volumes_look_missing() {
    let mut wanted = want(Power::On);
    wanted.shape = Err(Waiting(vec![("root".into(), "lost".into())]));
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.settle(&exist(&wanted), false);
    assert_eq!(host.seen().state, State::Running);
}

#[test]
fn an_edit_of_a_running_guest_waits_for_its_next_start() {
    let mut wanted = want(Power::On);
    wanted.shape = Ok(shape(2048));
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.settle(&exist(&wanted), false);
    assert_eq!(host.counts, BTreeMap::from([("autostart", 1)]));
    assert_eq!(changes::waiting_for_restart(&wanted, host.seen()), ["spec.memory.size"]);
    wanted.restarted_at = Some("once".into());
    host.settle(&exist(&wanted), false);
    assert_eq!(host.seen().live.clone().unwrap().memory_kib, 2048 * 1024);
    assert!(changes::waiting_for_restart(&wanted, host.seen()).is_empty());
}

#[test]
fn a_new_restart_annotation_restarts_once() {
    let mut wanted = want(Power::On);
    wanted.restarted_at = Some("one".into());
    let mut host = Model::with(mark(Run::Started), State::Running);
    for _ in 0..3 {
        host.settle(&exist(&wanted), true);
    }
    assert_eq!((host.counts["start"], host.counts["ask"]), (1, 1));
    assert_eq!(host.seen().mark.restarted_at.as_deref(), Some("one"));
}

#[test]
fn a_guest_that_stopped_is_started_again_as_its_policy_says() {
    use {Cause::*, Restart::*};
    for (restart, cause, starts) in [
        (Always, Shutdown, true),
        (Always, Failure, true),
        (OnFailure, Shutdown, false),
        (OnFailure, Failure, true),
        (OnFailure, Unknown, true),
        (Never, Shutdown, false),
        (Never, Failure, false),
        (Never, Unknown, false),
    ] {
        let wanted = Desired { restart, ..want(Power::On) };
        let mut host = Model::with(mark(Run::Started), State::Off(cause));
        host.settle(&exist(&wanted), false);
        assert_eq!(host.counts.contains_key("start"), starts, "{restart:?} {cause:?}");
    }
}

#[test]
fn a_guest_that_shut_itself_down_stays_off_until_the_annotation_or_the_power_state_changes() {
    let wanted = want(Power::On);
    let mut host = Model::with(mark(Run::Started), State::Off(Cause::Shutdown));
    host.seen().autostart = true;
    host.settle(&exist(&wanted), false);
    assert_eq!(host.seen().mark.run, Run::StoppedByGuest);
    assert!(!host.seen().autostart, "a host that reboots must leave it off");
    // libvirt forgets why it is off.
    host.seen().state = State::Off(Cause::Unknown);
    host.settle(&exist(&wanted), false);
    assert!(!host.counts.contains_key("start"));

    let mut annotated = host.clone();
    annotated.settle(&exist(&Desired { restarted_at: Some("x".into()), ..wanted.clone() }), false);
    assert_eq!(annotated.seen().state, State::Running);

    host.settle(&exist(&want(Power::Off)), false);
    host.settle(&exist(&wanted), false);
    assert_eq!(host.seen().state, State::Running);
}

#[test]
fn a_guest_that_does_not_obey_is_destroyed_at_the_deadline_or_waited_for() {
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.obeys = false;
    host.settle(&exist(&want(Power::Off)), false);
    assert_eq!((host.counts["destroy"], host.counts["ask"]), (1, 3));

    let patient = Desired { shutdown: Grace { timeout: SignedDuration::ZERO, destroy: false }, ..want(Power::Off) };
    let seen = Seen {
        asked: Some(now()),
        ..Model::with(mark(Run::Stopping { since: now() }), State::Running).domain.unwrap()
    };
    let late = now() + SignedDuration::from_hours(5);
    let answer = next(&exist(&patient), &Observed::Ours(Box::new(seen)), late);
    assert_eq!(answer, Next::Do(Step::AskShutdown(Ask::PowerButton)));
}

#[test]
fn a_wish_to_stop_that_is_taken_back_in_the_middle_ends_with_a_running_guest() {
    let stopping = mark(Run::Stopping { since: now() });
    for state in [State::Running, State::Off(Cause::Shutdown)] {
        let mut host = Model::with(stopping.clone(), state);
        host.settle(&exist(&want(Power::On)), true);
        assert_eq!((host.seen().state, host.seen().mark.run), (State::Running, Run::Started));
    }
}

#[test]
fn a_deleted_machine_is_shut_down_and_undefined() {
    let mut host = Model::with(mark(Run::Started), State::Running);
    assert_eq!(host.settle(&vanish(TeardownPolicy::Delete), true), Next::Done);
    assert_eq!(host.counts, BTreeMap::from([("mark", 1), ("ask", 1), ("undefine", 1)]));
}

#[test]
fn keep_touches_nothing_and_orphan_takes_only_the_mark() {
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.settle(&vanish(TeardownPolicy::Keep), false);
    assert!(host.counts.is_empty());
    host.settle(&vanish(TeardownPolicy::Orphan), false);
    assert_eq!(host.counts, BTreeMap::from([("unmark", 1)]));
}

#[test]
fn a_teardown_of_one_uid_leaves_the_domain_of_another() {
    let other = Mark { owner: owner("newer"), ..mark(Run::Started) };
    let mut host = Model::with(other, State::Running);
    assert_eq!(host.settle(&vanish(TeardownPolicy::Delete), false), Next::Done);
    assert!(host.counts.is_empty());
}

#[test]
fn the_domain_of_a_dead_object_is_retaken_as_it_runs() {
    let old = Mark { owner: owner("old"), ..mark(Run::Started) };
    let mut host = Model::with(old, State::Running);
    let uuid = host.seen().config.uuid.clone();
    host.settle(&exist(&want(Power::On)), true);
    let seen = host.seen();
    assert_eq!((seen.mark.owner.uid.as_str(), seen.state, &seen.config.uuid), ("new", State::Running, &uuid));
    assert_eq!(host.counts, BTreeMap::from([("mark", 1), ("autostart", 1)]));
}

#[test]
fn failing_starts_are_spread_out() {
    let failed = |count| {
        let failures = Failures { count, last: Some(now()) };
        let seen = Seen {
            failures,
            autostart: true,
            ..Model::with(mark(Run::Starting), State::Off(Cause::Failure)).domain.unwrap()
        };
        next(&exist(&want(Power::On)), &Observed::Ours(Box::new(seen)), now())
    };
    assert_eq!(failed(1), Next::Do(Step::Start));
    let pause = |count| match failed(count) {
        Next::Wait { until: Some(until), why: Why::Backoff } => until.duration_since(now()).as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!([2, 3, 4, 40].map(pause), [10, 20, 40, 300]);
}

#[test]
fn a_disk_keeps_its_target_and_a_new_one_gets_a_free_one() {
    let mut wanted = want(Power::On);
    let mut host = Model::with(mark(Run::Stopped), State::Off(Cause::Unknown));
    host.seen().targets = vec!["vda".into(), "vdb".into()];
    let new = DiskShape { name: "data".into(), ..shape(1).disks[0].clone() };
    wanted.shape.as_mut().unwrap().disks.insert(0, new);
    let domain = changes::pending(&wanted, host.seen()).unwrap();
    let targets: Vec<_> = domain.disks.iter().map(|d| (d.name.as_str(), d.target.as_str())).collect();
    assert_eq!(targets, [("data", "vdc"), ("root", "vda")]);
}

#[test]
fn only_what_is_waited_for_and_not_told_yet_may_pass() {
    use super::status::{Look, Outcome, may_pass, status};
    let goal = exist(&Desired {
        shape: Err(Waiting(vec![("web-root".into(), "it is being made".into())])),
        ..want(Power::On)
    });
    let waits = next(&goal, &Observed::Absent, now());
    let none = crds::virtual_machine::VirtualMachineStatus::default();
    let look = |previous, outcome| Look {
        previous,
        generation: 1,
        goal: Ok(&goal),
        seen: Some(&Observed::Absent),
        outcome,
        guest: None,
        now: now(),
    };
    let first = look(&none, Outcome::Planned(&waits));
    let told = status(&first);
    assert!(may_pass(&first, &told));
    let again = look(&told, Outcome::Planned(&waits));
    assert!(!may_pass(&again, &status(&again)), "it was told");
    let failed = look(&none, Outcome::Failed { step: &Step::Start, message: "no".into() });
    assert!(!may_pass(&failed, &status(&failed)), "a failure is told at once");
}

fn any_run() -> impl Strategy<Value = Run> {
    prop_oneof![
        Just(Run::Stopped),
        Just(Run::Starting),
        Just(Run::Started),
        (-200i64..1).prop_map(|s| Run::Stopping { since: now() + SignedDuration::from_secs(s) }),
        Just(Run::StoppedByGuest),
    ]
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Running),
        Just(State::Paused),
        Just(State::Crashed),
        Just(State::ShuttingDown),
        Just(State::Off(Cause::Shutdown)),
        Just(State::Off(Cause::Failure)),
        Just(State::Off(Cause::Unknown)),
    ]
}

prop_compose! {
    fn any_goal()(
        on: bool,
        restart in prop_oneof![Just(Restart::Always), Just(Restart::OnFailure), Just(Restart::Never)],
        restarted_at in proptest::option::of(Just("t".to_owned())),
        autostart: bool,
        destroy in Just(true),
        memory in prop_oneof![Just(1024u64), Just(2048)],
        teardown in proptest::option::of(prop_oneof![
            Just(TeardownPolicy::Delete), Just(TeardownPolicy::Orphan), Just(TeardownPolicy::Keep), Just(TeardownPolicy::Retain)
        ]),
    ) -> Goal {
        match teardown {
            Some(policy) => vanish(policy),
            None => exist(&Desired {
                power: if on { Power::On } else { Power::Off },
                restart,
                restarted_at,
                autostart,
                shutdown: Grace { timeout: SignedDuration::from_secs(60), destroy },
                shape: Ok(shape(memory)),
                ..want(Power::On)
            }),
        }
    }
}

prop_compose! {
    fn any_host()(
        there in proptest::bool::weighted(0.9),
        run in any_run(),
        state in any_state(),
        obeys: bool,
        autostart: bool,
        uid in prop_oneof![Just("new"), Just("old")],
    ) -> Model {
        if !there {
            return Model { obeys, ..Model::empty() };
        }
        let mut host = Model::with(Mark { owner: owner(uid), domain: uid.into(), run, restarted_at: None }, state);
        host.obeys = obeys;
        host.seen().autostart = autostart;
        host
    }
}

proptest! {
    #[test]
    fn it_converges_and_then_has_nothing_to_do(host in any_host(), goal in any_goal()) {
        let mut host = host;
        let last = host.settle(&goal, false);
        prop_assert_eq!(&last, &Next::Done);
        let before = host.counts.clone();
        host.settle(&goal, false);
        prop_assert_eq!(before, host.counts);
    }

    #[test]
    fn a_crash_after_every_effect_changes_neither_the_end_nor_what_was_done(host in any_host(), goal in any_goal()) {
        let (mut straight, mut crashing) = (host.clone(), host);
        straight.settle(&goal, false);
        crashing.settle(&goal, true);
        let end = |host: &Model| host.domain.clone().map(|seen| (seen.state, seen.mark.run, seen.config, seen.autostart));
        prop_assert_eq!(end(&straight), end(&crashing));
        let done = |host: &Model| ["define", "start", "destroy", "undefine", "redefine"].map(|k| host.counts.get(k).copied());
        prop_assert_eq!(done(&straight), done(&crashing));
    }

    #[test]
    fn a_running_guest_is_stopped_only_by_a_wish(host in any_host(), goal in any_goal()) {
        let mut host = host;
        let runs = host.domain.as_ref().is_some_and(|seen| seen.state == State::Running);
        let unmarked_run = host.domain.as_ref().is_some_and(|seen| seen.mark.run == Run::Started);
        host.settle(&goal, false);
        if let (Goal::Exist(want), true, true) = (&goal, runs, unmarked_run)
            && want.power == Power::On && want.restarted_at.is_none() {
            prop_assert!(!host.counts.contains_key("ask") && !host.counts.contains_key("destroy"));
            prop_assert_eq!(host.seen().state, State::Running);
        }
    }
}

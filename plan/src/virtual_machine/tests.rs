//! The plan against a model of a host that does what libvirt does. The model stands for libvirt itself only here, where each effect
//! must be followed by a crash; the `libvirt` crate and the stories are tested on the real one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::power::{Grace, Power, Restart};
use super::validate::{DiskShape, Shape, Waited, Waiting};
use super::*;
use crds::conditions::{Type, find};
use crds::virtual_machine::Apply;
use jiff::SignedDuration;
use libvirt_xml::{Accelerator, Cpu, Disk, DiskFormat, Interface, InterfaceKind, Kernel, Owner, Run};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn owner(uid: &str) -> Owner {
    Owner { cluster: "c".into(), namespace: "shop".into(), name: "web".into(), uid: uid.into() }
}

fn waiting(volume: &str, why: &str) -> Waiting {
    Waiting(vec![Waited { volume: volume.into(), why: why.into(), stalled: false }])
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
        otherwise: Vec::new(),
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

fn disk(name: &str, target: &str) -> libvirt_xml::Disk {
    let root = changes::new_domain(&want(Power::On), &shape(1)).disks[0].clone();
    libvirt_xml::Disk { name: name.into(), target: target.into(), file: format!("/pool/{name}"), ..root }
}

fn with_disks(shape: Shape, count: usize) -> Shape {
    let mut shape = shape;
    let root = shape.disks[0].clone();
    let new = |name: &&str| DiskShape { name: (*name).into(), file: format!("/pool/{name}"), ..root.clone() };
    shape.disks.extend(["data", "more"].iter().take(count).map(new));
    shape
}

/// One domain on a model host, and how often each kind of effect was carried out.
#[derive(Clone, Debug)]
struct Model {
    domain: Option<Seen>,
    /// Whether the guest answers a request to shut down.
    obeys: bool,
    /// Whether it lets go of a disk.
    lets_go: bool,
    counts: BTreeMap<&'static str, u32>,
}

impl Model {
    fn empty() -> Model {
        Model { domain: None, obeys: true, lets_go: true, counts: BTreeMap::new() }
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
            detaching: BTreeMap::new(),
            failures: Failures::default(),
            chains: BTreeMap::new(),
            unseen: BTreeSet::new(),
            ahead: BTreeMap::new(),
            snapshots: (0, None),
            merging: None,
        };
        Model { domain: Some(seen), ..Model::empty() }
    }

    fn observe(&self) -> Observed {
        let Some(mut seen) = self.domain.clone() else { return Observed::Absent };
        let disks = seen.config.disks.iter().chain(seen.live.iter().flat_map(|live| &live.disks));
        let targets: std::collections::BTreeSet<_> = disks.map(|disk| disk.target.clone()).collect();
        seen.targets.extend(targets);
        Observed::Ours(Box::new(seen))
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
                assert_eq!(seen.config.uuid, domain.uuid);
                let (before, after) = (overlaid(seen), overlaid(&Seen { config: (**domain).clone(), ..seen.clone() }));
                assert!(before.iter().all(|disk| after.contains(disk)), "put back from an overlay");
                (seen.config, seen.persistent) = ((**domain).clone(), true);
                seen.mark = seen.config.mark.clone().expect("a definition keeps its mark");
                "redefine"
            }
            Step::Mark(mark) => {
                let seen = self.seen();
                (seen.mark, seen.config.mark) = (mark.clone(), Some(mark.clone()));
                "mark"
            }
            Step::Unmark => {
                self.domain = None;
                "unmark"
            }
            Step::Start => {
                let seen = self.seen();
                assert!(matches!(seen.state, State::Off(_)), "started twice");
                let behind = seen.config.disks.iter().any(|disk| seen.ahead.contains_key(&disk.file));
                assert!(!behind, "started on a file that the guest had left");
                (seen.state, seen.live, seen.id) = (State::Running, Some(seen.config.clone()), Some(8));
                "start"
            }
            Step::Attach { disk } => {
                let seen = self.seen();
                let new = seen.config.disks.iter().find(|d| d.name == *disk).expect("in the definition").clone();
                let live = &mut seen.live.as_mut().expect("it runs").disks;
                assert!(live.iter().all(|d| d.target != new.target && d.name != new.name), "{new:?} beside {live:?}");
                live.push(new);
                "attach"
            }
            Step::Detach { disk } => {
                let lets_go = self.lets_go;
                let seen = self.seen();
                assert!(seen.config.disks.iter().all(|d| d.name != *disk), "the next start would bring it back");
                seen.detaching.insert(disk.clone(), now);
                if lets_go {
                    seen.live.as_mut().expect("it runs").disks.retain(|d| d.name != *disk);
                }
                "detach"
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
            seen.detaching.clear();
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

/// The disks that are on an overlay.
fn overlaid(seen: &Seen) -> Vec<Disk> {
    seen.config.disks.iter().filter(|disk| disk.file.contains(".before-")).cloned().collect()
}

/// A host whose domain went onto an overlay over its volume's file.
fn with_overlay(host: &mut Model) {
    let Some(seen) = &mut host.domain else { return };
    for domain in [Some(&mut seen.config), seen.live.as_mut()].into_iter().flatten() {
        domain.disks[0].file = OVERLAY.into();
    }
    seen.snapshots = (1, Some("before".into()));
}

const OVERLAY: &str = "/pool/shop.web-root-0a1b2c3d.before-00000000";

/// A host whose guest writes to an overlay that the definition does not name.
fn behind(host: &mut Model) {
    let seen = host.seen();
    seen.ahead = [(seen.config.disks[0].file.clone(), OVERLAY.into())].into();
}

fn exist(want: &Desired) -> Goal {
    Goal::Exist(Box::new(want.clone()))
}

fn mark(run: Run) -> Mark {
    Mark { owner: owner("new"), domain: "new".into(), run, restarted_at: None, applied: None }
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
    wanted.shape = Err(waiting("root", "importing"));
    let mut host = Model::empty();
    assert!(matches!(host.settle(&exist(&wanted), false), Next::Wait { why: Why::Volumes(_), .. }));
    assert!(host.counts.is_empty());
}

#[test]
fn a_running_guest_stays_when_its_volumes_look_missing() {
    let mut wanted = want(Power::On);
    wanted.shape = Err(waiting("root", "lost"));
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.settle(&exist(&wanted), false);
    assert_eq!(host.seen().state, State::Running);
}

#[test]
fn what_is_paused_or_panicked_keeps_its_state_until_it_should_be_off() {
    for state in [State::Paused, State::Crashed] {
        let mut host = Model::with(mark(Run::Started), state);
        host.settle(&exist(&want(Power::On)), true);
        assert_eq!((host.seen().state, host.counts.clone()), (state, BTreeMap::from([("autostart", 1)])));
        host.settle(&exist(&want(Power::Off)), true);
        assert!(matches!(host.seen().state, State::Off(_)));
    }
}

#[test]
fn an_edit_of_a_running_guest_waits_for_its_next_start() {
    let mut wanted = want(Power::On);
    wanted.shape = Ok(shape(2048));
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.settle(&exist(&wanted), false);
    assert_eq!(host.counts, BTreeMap::from([("autostart", 1)]));
    let waiting = changes::waiting(&wanted, host.seen());
    assert_eq!((waiting[0].path.as_str(), waiting[0].apply), ("spec.memory.size", Apply::Restart));
    assert_eq!((waiting[0].current.as_str(), waiting[0].desired.as_str()), ("1Gi", "2Gi"));
    wanted.restarted_at = Some("once".into());
    host.settle(&exist(&wanted), false);
    assert_eq!(host.seen().live.clone().unwrap().memory_kib, 2048 * 1024);
    assert!(changes::waiting(&wanted, host.seen()).is_empty());
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
fn a_disk_that_is_added_or_taken_away_follows_while_the_guest_runs() {
    let mut host = Model::with(mark(Run::Started), State::Running);
    let more = Desired { shape: Ok(with_disks(shape(1024), 2)), ..want(Power::On) };
    host.settle(&exist(&more), true);
    assert_eq!(host.counts, BTreeMap::from([("redefine", 1), ("attach", 2), ("autostart", 1)]));
    assert_eq!(host.seen().live.clone().unwrap().disks, host.seen().config.disks);
    host.settle(&exist(&want(Power::On)), true);
    assert_eq!((host.counts["detach"], host.seen().live.clone().unwrap().disks.len()), (2, 1));
    assert!(!host.counts.contains_key("ask"));
}

#[test]
fn a_guest_that_does_not_let_go_of_a_disk_is_asked_again_and_its_start_is_without_it() {
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.lets_go = false;
    host.seen().live.as_mut().unwrap().disks.push(disk("data", "vdb"));
    host.seen().autostart = true;
    let look = |host: &Model, at| next(&exist(&want(Power::On)), &host.observe(), at);
    let Next::Do(step) = look(&host, now()) else { panic!("not asked") };
    host.execute(&step, now());
    let waits = look(&host, now());
    let Next::Wait { until: Some(until), why: Why::Detach(disks) } = &waits else { panic!("{waits:?}") };
    assert_eq!(disks, &["data"]);
    assert_eq!(until.duration_since(now()), power::ASK_AGAIN);
    assert_eq!(changes::waiting(&want(Power::On), host.seen())[0].apply, Apply::Live);
    assert_eq!(look(&host, *until), Next::Do(Step::Detach { disk: "data".into() }));
}

#[test]
fn a_new_disk_takes_no_target_that_the_guest_has_not_let_go_of() {
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.seen().live.as_mut().unwrap().disks.push(disk("old", "vdb"));
    host.seen().targets = vec!["vda".into(), "vdb".into()];
    host.settle(&exist(&Desired { shape: Ok(with_disks(shape(1024), 1)), ..want(Power::On) }), false);
    assert_eq!(host.seen().config.disks[1].target, "vdc");
}

#[test]
fn another_volume_of_a_disk_waits_for_the_next_start() {
    let mut wanted = want(Power::On);
    wanted.shape.as_mut().unwrap().disks[0].file = "/pool/other".into();
    let mut host = Model::with(mark(Run::Started), State::Running);
    host.settle(&exist(&wanted), false);
    assert_eq!(host.counts, BTreeMap::from([("autostart", 1)]));
    let waiting = changes::waiting(&wanted, host.seen());
    assert_eq!((waiting[0].path.as_str(), waiting[0].apply), ("spec.disks[root]", Apply::Restart));
}

#[test]
fn what_somebody_changed_in_a_definition_is_told_and_put_back_and_the_guest_runs_on() {
    let mut host = Model::empty();
    host.settle(&exist(&want(Power::On)), false);
    host.seen().config.vcpus = 7;
    let told = changes::drift(&want(Power::On), host.seen());
    assert_eq!(told, ["spec.cpu.cores had been changed to 7, it is 1 again"]);
    host.settle(&exist(&want(Power::On)), true);
    assert_eq!((host.seen().config.vcpus, host.counts["start"], host.counts["redefine"]), (1, 1, 1));
    assert!(changes::drift(&want(Power::On), host.seen()).is_empty());
    // An edit of the manifest is no drift, neither before nor after it took effect.
    let edited = Desired { shape: Ok(shape(2048)), ..want(Power::On) };
    host.settle(&exist(&edited), false);
    assert!(changes::drift(&edited, host.seen()).is_empty() && host.counts["redefine"] == 1);
}

#[test]
fn a_definition_of_another_version_is_left_until_the_next_start_and_called_nobodys_change() {
    let mut host = Model::empty();
    host.settle(&exist(&want(Power::On)), false);
    let other = Some("f92a4afef5ad33f2".to_owned());
    let seen = host.seen();
    seen.mark.applied = other.clone();
    seen.config.mark = Some(seen.mark.clone());
    let before = host.counts.clone();
    // Neither as it is, nor with a change that waits for a restart.
    for memory in [1024, 2048] {
        let wanted = Desired { shape: Ok(shape(memory)), ..want(Power::On) };
        assert_eq!(host.settle(&exist(&wanted), false), Next::Done);
        assert!(changes::drift(&wanted, host.seen()).is_empty());
    }
    assert_eq!(host.counts, before);
    assert_eq!(host.seen().mark.applied, other);
    host.seen().state = State::Off(Cause::Failure);
    host.seen().live = None;
    host.settle(&exist(&want(Power::On)), false);
    assert_eq!((host.counts["redefine"], host.counts["start"]), (1, 2));
    host.seen().config.vcpus = 7;
    assert_eq!(changes::drift(&want(Power::On), host.seen()).len(), 1, "from then on changes are seen again");
}

#[test]
fn a_digest_that_comes_out_otherwise_begins_otherwise() {
    let mut of_all = shape(1024);
    of_all.kernel = Some(Kernel { kernel: "/k".into(), initrd: None, command_line: None });
    of_all.interfaces =
        vec![Interface { name: "lan".into(), mac: "52:54:00:00:00:01".into(), kind: InterfaceKind::User }];
    let domain = changes::new_domain(&want(Power::On), &of_all);
    // Another value here is another digest: count `DIGESTED` up, or all that was defined before is taken for changed by somebody.
    assert_eq!(domain.mark.unwrap().applied.unwrap(), "1:2ed927d615e90909");
}

#[test]
fn a_disk_that_goes_on_in_an_overlay_of_its_volume_is_no_drift() {
    let mut host = Model::empty();
    let goal = exist(&want(Power::On));
    host.settle(&goal, false);
    let before = host.counts.clone();
    with_overlay(&mut host);
    assert_eq!(host.settle(&goal, false), Next::Done);
    assert_eq!(host.counts, before, "the definition was written for nothing");
}

#[test]
fn a_running_domain_that_somebody_undefined_is_defined_again() {
    let mut host = Model::empty();
    host.settle(&exist(&want(Power::On)), false);
    host.seen().persistent = false;
    host.settle(&exist(&want(Power::On)), false);
    assert!(host.seen().persistent && host.counts["start"] == 1);
}

#[test]
fn a_domain_is_never_put_back_from_an_overlay_onto_the_file_below() {
    let mut wanted = want(Power::Off);
    wanted.shape.as_mut().unwrap().disks[0].format = DiskFormat::Raw;
    wanted.shape.as_mut().unwrap().memory_kib = 2048 * 1024;
    for elsewhere in [false, true] {
        let mut host = Model::with(mark(Run::Stopped), State::Off(Cause::Unknown));
        with_overlay(&mut host);
        if elsewhere {
            // As `virsh snapshot-create-as --diskspec vda,file=/elsewhere/x` leaves it.
            host.seen().config.disks[0].file = "/elsewhere/x".into();
            host.seen().chains = [("/elsewhere/x".into(), vec![shape(1).disks[0].file.clone()])].into();
        }
        let before = host.seen().config.disks.clone();
        assert_eq!(host.settle(&exist(&wanted), true), Next::Done);
        assert_eq!(host.counts, BTreeMap::from([("redefine", 1)]), "its memory");
        assert_eq!(host.seen().config.disks, before);
        wanted.power = Power::On;
        host.settle(&exist(&wanted), true);
        assert_eq!(host.seen().live.clone().unwrap().disks, before);
        let told = changes::waiting(
            match &*overlays::kept(&exist(&wanted), &host.observe()) {
                Goal::Exist(want) => want,
                Goal::Vanish(_) => panic!(),
            },
            host.seen(),
        );
        assert_eq!(told, Vec::new());
        wanted.power = Power::Off;
    }
}

/// `virsh snapshot-create-as --diskspec vda,file=…` in a directory that the agent's pod, or its unit, does not have.
#[test]
fn a_disk_on_a_file_that_nobody_can_look_into_stays_there_where_the_domain_has_snapshots() {
    let elsewhere = |file: &str, snapshots: u32| {
        let mut host = Model::empty();
        host.settle(&exist(&want(Power::On)), false);
        let seen = host.seen();
        for domain in [Some(&mut seen.config), seen.live.as_mut()].into_iter().flatten() {
            domain.disks[0].file = file.into();
        }
        seen.unseen = [file.to_owned()].into();
        seen.snapshots = (snapshots, None);
        host.settle(&exist(&want(Power::On)), false);
        host.settle(&exist(&want(Power::Off)), false);
        host.seen().config.disks[0].file.clone()
    };
    let own = shape(1).disks[0].file.clone();
    for file in ["/var/tmp/x", "/var/tmp/shop.web-root-0a1b2c3d.first"] {
        assert_eq!(elsewhere(file, 1), file);
    }
    // Without snapshots, or with another volume's file, somebody changed the definition.
    assert_eq!([elsewhere("/var/tmp/x", 0), elsewhere("/pool/shop.other-0a1b2c3d.qcow2", 1)], [own.clone(), own]);
}

#[test]
fn a_domain_that_is_behind_its_disks_is_brought_onto_the_overlay_before_it_starts_again() {
    for state in [State::Off(Cause::Unknown), State::Running] {
        let mut host = Model::with(mark(Run::Started), state);
        behind(&mut host);
        let mut wanted = want(Power::On);
        host.settle(&exist(&wanted), true);
        // Also under the guest: it may be libvirt that starts it next.
        let next = host.seen().config.disks[0].clone();
        assert_eq!((next.file.as_str(), next.format), (OVERLAY, DiskFormat::Qcow2));
        let goal = exist(&wanted);
        let Goal::Exist(kept) = &*overlays::kept(&goal, &host.observe()) else { panic!() };
        let waits = state == State::Running;
        let told = changes::waiting(kept, host.seen());
        assert_eq!(
            told.iter().map(|change| change.apply).collect::<Vec<_>>(),
            vec![Apply::Restart; usize::from(waits)]
        );
        wanted.restarted_at = Some("now".into());
        host.settle(&exist(&wanted), true);
        assert_eq!(host.seen().live.as_ref().unwrap().disks[0].file, OVERLAY);
    }
}

#[test]
fn a_disk_that_was_given_another_volume_goes_to_it() {
    let mut host = Model::with(mark(Run::Stopped), State::Off(Cause::Unknown));
    with_overlay(&mut host);
    let mut wanted = want(Power::Off);
    let file = "/pool/shop.other-0a1b2c3d.qcow2";
    wanted.shape.as_mut().unwrap().disks[0].file = file.into();
    let Next::Do(Step::Redefine(domain)) = next(&exist(&wanted), &host.observe(), now()) else { panic!() };
    assert_eq!(domain.disks[0].file, file);
}

#[test]
fn a_machine_waits_for_a_merge_and_its_deletion_does_not() {
    for state in [State::Running, State::Paused, State::Off(Cause::Unknown)] {
        for power in [Power::On, Power::Off] {
            let mut host = Model::with(mark(Run::Stopped), state);
            host.seen().merging = Some("before".into());
            let waits = next(&exist(&want(power)), &host.observe(), now());
            assert_eq!(waits, Next::Wait { until: None, why: Why::Snapshot("before".into()) });
        }
        let mut host = Model::with(mark(Run::Started), state);
        host.seen().merging = Some("before".into());
        assert_eq!(host.settle(&vanish(TeardownPolicy::Delete), true), Next::Done);
        assert_eq!(host.domain, None);
    }
}

#[test]
fn only_what_is_waited_for_and_not_told_yet_may_pass() {
    use super::status::{Look, Outcome, may_pass, status};
    let goal = exist(&Desired { shape: Err(waiting("web-root", "it is being made")), ..want(Power::On) });
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

#[test]
fn a_machine_whose_volume_waits_for_an_edit_waits_for_it_too() {
    use super::status::{Look, Outcome, status};
    let mut volumes = waiting("web-root", "it cannot be made");
    for stalled in [false, true] {
        volumes.0[0].stalled = stalled;
        let goal = exist(&Desired { shape: Err(volumes.clone()), ..want(Power::On) });
        for (host, running) in [(Model::empty(), false), (Model::with(mark(Run::Started), State::Running), true)] {
            let seen = host.observe();
            let planned = next(&goal, &seen, now());
            let previous = crds::virtual_machine::VirtualMachineStatus::default();
            let (goal, outcome) = (Ok(&goal), Outcome::Planned(&planned));
            let look =
                Look { previous: &previous, generation: 1, goal, seen: Some(&seen), outcome, guest: None, now: now() };
            let told = find(&status(&look).conditions, Type::Stalled).map(|stalled| stalled.reason.clone());
            assert_eq!(told.as_deref(), (stalled && !running).then_some("VolumeStalled"));
        }
    }
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
        disks in 0..3usize,
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
                shape: Ok(with_disks(shape(memory), disks)),
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
        applied in prop_oneof![Just(None), Just(Some("1:of another definition")), Just(Some("of another version"))],
        overlay in prop::sample::select(vec!["none", "named", "ahead"]),
        disks in prop_oneof![Just(Vec::new()), Just(vec![disk("data", "vdb")]), Just(vec![disk("logs", "vdc"), disk("data", "vdb")])],
    ) -> Model {
        if !there {
            return Model { obeys, ..Model::empty() };
        }
        let applied = applied.map(str::to_owned);
        let mark = Mark { owner: owner(uid), domain: uid.into(), run, restarted_at: None, applied };
        let mut host = Model::with(mark, state);
        host.obeys = obeys;
        let seen = host.seen();
        seen.autostart = autostart;
        if let Some(live) = &mut seen.live {
            live.disks = [live.disks.clone(), disks].concat();
        }
        match overlay {
            "named" => with_overlay(&mut host),
            "ahead" => behind(&mut host),
            _ => {}
        }
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

    /// Whatever is asked: a domain of another mark's object is retaken or left, and no step carries another domain's UUID.
    #[test]
    fn no_step_names_another_domain(host in any_host(), goal in any_goal()) {
        let mut host = host;
        let foreign = Observed::Foreign { whose: "somebody's".into() };
        prop_assert!(!matches!(next(&goal, &foreign, now()), Next::Do(_)));
        for second in 0..64 {
            let seen = host.observe();
            let Next::Do(step) = next(&goal, &seen, now() + SignedDuration::from_secs(second)) else { continue };
            match (&step, &seen, &goal) {
                (Step::Define(domain), Observed::Absent, Goal::Exist(want)) => {
                    let mark = domain.mark.as_ref().unwrap();
                    prop_assert_eq!((&domain.uuid, &mark.domain), (&want.owner.uid, &want.owner.uid));
                    prop_assert_eq!((&domain.name, &mark.owner), (&want.name, &want.owner));
                }
                (Step::Redefine(domain), Observed::Ours(seen), Goal::Exist(want)) => {
                    prop_assert_eq!((&domain.uuid, &domain.name), (&seen.config.uuid, &seen.config.name));
                    prop_assert_eq!(&seen.mark.owner, &want.owner);
                }
                (Step::Mark(mark), Observed::Ours(seen), Goal::Exist(want)) => {
                    prop_assert_eq!((&mark.domain, &mark.owner), (&seen.mark.domain, &want.owner));
                }
                // All else is done to a domain whose mark says that it is this very object's.
                (_, Observed::Ours(seen), Goal::Exist(want)) => prop_assert_eq!(&seen.mark.owner, &want.owner),
                (_, Observed::Ours(seen), Goal::Vanish(vanish)) => prop_assert_eq!(&seen.mark.owner.uid, &vanish.uid),
                (step, seen, _) => prop_assert!(false, "{:?} on {:?}", step, seen),
            }
            host.execute(&step, now() + SignedDuration::from_secs(second));
        }
    }

    /// The agent says that a teardown is done when nothing is left of it to do, and not before.
    #[test]
    fn a_teardown_is_done_when_the_plan_is(host in any_host(), goal in any_goal()) {
        let mut host = host;
        for second in 0..64 {
            let (seen, time) = (host.observe(), now() + SignedDuration::from_secs(second));
            let answer = next(&goal, &seen, time);
            let previous = crds::virtual_machine::VirtualMachineStatus::default();
            let outcome = status::Outcome::Planned(&answer);
            let look = status::Look { previous: &previous, generation: 1, goal: Ok(&goal), seen: Some(&seen), outcome, guest: None, now: time };
            let told = status::status(&look);
            let done = told.teardown.and_then(|teardown| teardown.done);
            prop_assert_eq!(done.is_some(), matches!(goal, Goal::Vanish(_)) && answer == Next::Done);
            if let (Goal::Exist(want), Observed::Ours(seen)) = (&goal, &seen) {
                // Ready is what runs and should, or is off and should be or shut itself down.
                let ready = crds::conditions::is_true(&told.conditions, crds::conditions::Type::Ready);
                let fits = match (want.power, seen.state) {
                    (Power::On, State::Running) | (Power::Off, State::Off(_)) => true,
                    (Power::On, State::Off(_)) => seen.mark.run == Run::StoppedByGuest && answer == Next::Done,
                    _ => false,
                };
                prop_assert!(!ready || fits, "{:?}", told.conditions);
            }
            if let Next::Do(step) = answer {
                host.execute(&step, time);
            }
        }
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

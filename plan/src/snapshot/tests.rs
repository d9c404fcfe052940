//! The plan against a model of a domain that does with snapshots what libvirt does.

#![allow(clippy::unwrap_used)]

mod unnoted;

use super::status::{Look, Outcome};
use super::*;
use crate::names;
use crate::virtual_machine::Cause;
use crds::conditions::{Type, find as condition};
use crds::snapshot::{Method, RefKind, SnapshotPhase, SnapshotStatus};
use jiff::SignedDuration;
use libvirt_xml::DiskFormat;
use libvirt_xml::snapshot::{Disk, Part, Place};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const UID: &str = "0a1b2c3d-new";
const OFF: State = State::Off(Cause::Shutdown);

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn want(method: Method) -> Desired {
    Desired { name: "before".into(), uid: UID.into(), method, disks: Selection::All }
}

fn exist(method: Method) -> Goal {
    Goal::Exist(want(method))
}

fn gone(policy: TeardownPolicy) -> Goal {
    Goal::Vanish { policy, name: "before".into(), uid: UID.into() }
}

/// One domain on a model host.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    state: State,
    /// Name, file and format.
    disks: Vec<(String, String, Format)>,
    /// Targets of disks that are not ours.
    others: Vec<String>,
    snapshots: Vec<Snapshot>,
    current: Option<String>,
    /// The overlays in the pool, with the file below each.
    overlays: BTreeMap<String, String>,
    /// Those that the guest has left, which libvirt does not know.
    left: BTreeSet<String>,
    /// Whether libvirt believes in an overlay that is gone.
    adrift: bool,
    /// Whether the object once said that its snapshot is there.
    was_there: bool,
    /// How often taking will fail.
    failing: u32,
    attempt: Attempt,
    counts: BTreeMap<&'static str, u32>,
}

fn domain(state: State) -> Model {
    let disk = |name: &str, format: Format| {
        (name.to_owned(), format!("/p/{}", names::volume_file("shop", name, UID, format)), format)
    };
    Model {
        state,
        disks: vec![disk("root", Format::Qcow2), disk("data", Format::Raw)],
        others: vec!["sda".into()],
        snapshots: Vec::new(),
        current: None,
        overlays: BTreeMap::new(),
        left: BTreeSet::new(),
        adrift: false,
        was_there: false,
        failing: 0,
        attempt: Attempt::None,
        counts: BTreeMap::new(),
    }
}

/// A snapshot of somebody's; `uid`: of whose object.
fn somebodys(name: &str, place: Place, parent: Option<&str>, uid: Option<&str>) -> Snapshot {
    Snapshot {
        name: name.into(),
        uid: uid.map(str::to_owned),
        parent: parent.map(str::to_owned),
        created: 7,
        state: "shutoff".into(),
        places: vec![place],
        disks: Vec::new(),
        files: Vec::new(),
        unfinished: false,
    }
}

impl Model {
    fn with(mut self, snapshot: Snapshot) -> Model {
        self.current = Some(snapshot.name.clone());
        self.snapshots.push(snapshot);
        self
    }

    fn seen(&self) -> Seen {
        let is_used = |path: &String| {
            self.disks.iter().any(|(_, file, _)| file == path) || self.overlays.values().any(|below| below == path)
        };
        let disk = |(name, file, format): &(String, String, Format)| {
            let of = names::overlay_file(file.trim_start_matches("/p/"), "before", UID);
            let path = format!("/p/{}", of.unwrap());
            let there = match self.overlays.get(&path) {
                None => OverlayFile::Absent,
                Some(_) if *file == path => OverlayFile::On { blank: false },
                Some(_) if is_used(&path) => OverlayFile::Used,
                Some(below) if below == file => OverlayFile::Blank,
                Some(_) => OverlayFile::Stale,
            };
            SeenDisk {
                name: name.clone(),
                target: format!("vd-{name}"),
                file: file.clone(),
                format: *format,
                read_only: false,
                capacity: Some(512),
                overlay: Overlay::At { path, file: there },
            }
        };
        Seen {
            state: self.state,
            machine_goes: false,
            disks: self.disks.iter().map(disk).collect(),
            others: self.others.clone(),
            snapshots: self.snapshots.clone(),
            current: self.current.clone(),
            was_there: self.was_there,
            adrift: self.adrift.then(|| "/p/below".into()),
            unwritten: None,
            attempt: self.attempt.clone(),
            merging: None,
            merged: self.merged(),
            can_merge: true,
        }
    }

    /// Overlays that libvirt's record has, with the file below each.
    fn recorded(&self) -> Vec<(String, Disk)> {
        let record = self.snapshots.iter().find(|snapshot| snapshot.name == "before");
        let disks = record.into_iter().flat_map(|snapshot| &snapshot.disks);
        disks.filter_map(|disk| Some((disk.overlay.clone()?, disk.clone()))).collect()
    }

    fn merged(&self) -> MergeStage {
        let recorded = self.recorded();
        let gone = |overlay: &String| !self.overlays.contains_key(overlay);
        let is_named = |overlay: &String| self.disks.iter().any(|(_, file, _)| file == overlay);
        let merged: Vec<_> = recorded.iter().map(|(overlay, _)| overlay).filter(|overlay| gone(overlay)).collect();
        match recorded.iter().find(|(overlay, _)| self.left.contains(overlay)) {
            Some((overlay, _)) => MergeStage::InQemu { overlay: overlay.clone() },
            None if merged.is_empty() => MergeStage::NotBegun,
            None if merged.iter().any(|overlay| is_named(overlay)) => MergeStage::InFiles,
            None if merged.len() < recorded.len() => MergeStage::Partly,
            None => MergeStage::Everywhere,
        }
    }

    fn next(&self, goal: &Goal) -> Next {
        next(goal, &Observed::Domain(Box::new(self.seen())), now())
    }

    fn execute(&mut self, step: &Step, time: Timestamp) {
        let name = match step {
            Step::Prepare { path, below, .. } => {
                assert!(self.overlays.insert(path.clone(), below.clone()).is_none(), "overwritten");
                "prepare"
            }
            Step::Discard { path } => {
                assert!(!self.disks.iter().any(|(_, file, _)| file == path), "removed from below its guest");
                self.overlays.remove(path).unwrap();
                "discard"
            }
            Step::Take { .. } if self.failing > 0 => {
                self.failing -= 1;
                let again = time + SignedDuration::from_secs(60);
                self.attempt = Attempt::Failed { message: "no space".into(), again };
                "fail"
            }
            Step::Take { request, method } => {
                self.attempt = Attempt::None;
                self.take(request, *method);
                "take"
            }
            Step::Record { request, on } => {
                assert!(*on, "it was written to");
                self.record(request);
                "record"
            }
            Step::Claim { uid } => {
                self.attempt = Attempt::None;
                self.snapshots.iter_mut().find(|s| s.name == "before").unwrap().uid.clone_from(uid);
                "claim"
            }
            Step::Drop { overlay } => {
                assert!(self.left.remove(overlay), "the guest writes to it");
                self.overlays.remove(overlay).unwrap();
                self.adrift = true;
                "drop"
            }
            Step::Settle => {
                for (overlay, was) in self.recorded() {
                    let is_gone = !self.overlays.contains_key(&overlay);
                    for (_, file, format) in self.disks.iter_mut().filter(|(_, file, _)| is_gone && *file == overlay) {
                        *format = if was.format == DiskFormat::Raw { Format::Raw } else { Format::Qcow2 };
                        file.clone_from(&was.file);
                    }
                }
                "settle"
            }
            Step::Mend { .. } => panic!("nothing follows it"),
            Step::Clear { snapshot } => {
                self.snapshots.iter_mut().find(|s| s.name == *snapshot).unwrap().unfinished = false;
                "clear"
            }
            Step::Strike => {
                assert!(self.snapshots.iter().all(|s| !s.unfinished), "its parent could never be deleted");
                let overlays = self.overlays.clone();
                let record = self.snapshots.iter_mut().find(|snapshot| snapshot.name == "before").unwrap();
                record.disks.retain(|disk| disk.overlay.as_ref().is_some_and(|o| overlays.contains_key(o)));
                "strike"
            }
            Step::Forget => {
                let is_there = |overlay: &String| self.overlays.contains_key(overlay);
                assert!(!self.recorded().iter().any(|(overlay, _)| is_there(overlay)), "it was not merged");
                assert!(self.snapshots.iter().all(|s| !s.unfinished), "its parent could never be deleted");
                self.snapshots.retain(|snapshot| snapshot.name != "before");
                "forget"
            }
            Step::Merge => {
                self.merge();
                "merge"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }

    fn take(&mut self, request: &Request, method: UsedMethod) {
        assert_eq!(request.disks.len(), 3, "every disk is named");
        let place = match method {
            UsedMethod::Internal => Place::Internal,
            UsedMethod::External => Place::External,
        };
        let mut disks = Vec::new();
        for (name, file, format) in &mut self.disks {
            let target = format!("vd-{name}");
            let overlay = match &request.disks.iter().find(|disk| disk.target == target).unwrap().part {
                Part::Excluded => continue,
                Part::Internal => None,
                Part::External { overlay } => {
                    assert_eq!(self.overlays.get(overlay), Some(&*file), "not over the disk's file");
                    Some(overlay.clone())
                }
            };
            let was = match format {
                Format::Raw => DiskFormat::Raw,
                Format::Qcow2 => DiskFormat::Qcow2,
            };
            let name = Some(name.clone());
            disks.push(Disk { name, target, place, file: file.clone(), format: was, overlay: overlay.clone() });
            if let Some(overlay) = overlay {
                (*file, *format) = (overlay, Format::Qcow2);
            }
        }
        let parent = self.current.replace(request.name.clone());
        let base = somebodys(&request.name, place, parent.as_deref(), Some(&request.uid));
        self.snapshots.push(Snapshot { disks, ..base });
    }

    /// What libvirt does but for its note.
    fn switch(mut self) -> Model {
        for (name, file, format) in &mut self.disks {
            let overlay = format!("/p/shop.{name}-0a1b2c3d.before-0a1b2c3d");
            self.overlays.insert(overlay.clone(), std::mem::replace(file, overlay));
            *format = Format::Qcow2;
        }
        self
    }

    fn record(&mut self, request: &Request) {
        let mut before = self.clone();
        for (_, file, format) in &mut before.disks {
            let below = self.overlays[file].clone();
            *format = if below.ends_with("raw") { Format::Raw } else { Format::Qcow2 };
            *file = below;
        }
        before.take(request, UsedMethod::External);
        assert_eq!(before.disks, self.disks, "it says what was done");
        (self.snapshots, self.current) = (before.snapshots, before.current);
    }

    fn merge(&mut self) {
        assert!(!self.adrift && self.left.is_empty(), "over what was written since");
        let at = self.snapshots.iter().position(|s| s.name == "before").unwrap();
        let merged = self.snapshots.remove(at);
        for disk in &merged.disks {
            let Some(overlay) = &disk.overlay else { continue };
            let below = self.overlays.remove(overlay).unwrap();
            for (_, file, format) in self.disks.iter_mut().filter(|(_, file, _)| file == overlay) {
                *format = if below.ends_with("raw") { Format::Raw } else { Format::Qcow2 };
                file.clone_from(&below);
            }
        }
        for child in self.snapshots.iter_mut().filter(|s| s.parent.as_deref() == Some("before")) {
            child.parent.clone_from(&merged.parent);
        }
        if self.current.as_deref() == Some("before") {
            self.current = merged.parent;
        }
    }

    fn settle(&mut self, goal: &Goal, crash: bool) -> Next {
        let mut time = now();
        for _ in 0..64 {
            time += SignedDuration::from_secs(1);
            match next(goal, &Observed::Domain(Box::new(self.seen())), time) {
                Next::Do(step) => self.execute(&step, time),
                Next::Wait { until: Some(until), .. } | Next::Blocked { until: Some(until), .. } => {
                    assert!(until > time);
                    assert!(self.overlays.keys().all(|path| self.disks.iter().any(|(_, file, _)| file == path)));
                    time = until;
                }
                last @ (Next::Done | Next::Wait { .. } | Next::Blocked { .. } | Next::Refuse(_)) => return last,
            }
            if crash {
                self.attempt = Attempt::None;
            }
        }
        panic!("does not converge: {self:?}");
    }

    fn refused(&self, goal: &Goal) -> &'static str {
        match self.next(goal) {
            Next::Refuse(why) | Next::Wait { why, .. } | Next::Blocked { why, .. } => why.word,
            Next::Done => "Done",
            Next::Do(_) => "Do",
        }
    }
}

#[test]
fn an_external_snapshot_is_taken_of_all_disks_at_once_into_overlays_that_were_made_first() {
    for state in [OFF, State::Running, State::Paused] {
        let mut host = domain(state);
        assert_eq!(host.settle(&exist(Method::Auto), true), Next::Done);
        assert_eq!(host.counts, BTreeMap::from([("prepare", 2), ("take", 1)]));
        let files: Vec<_> = host.disks.iter().map(|(_, file, _)| file.as_str()).collect();
        assert_eq!(files, ["/p/shop.root-0a1b2c3d.before-0a1b2c3d", "/p/shop.data-0a1b2c3d.before-0a1b2c3d"]);
    }
}

#[test]
fn only_the_chosen_disks_are_taken() {
    for disks in [Selection::Only(vec!["data".into()]), Selection::Without(vec!["root".into()])] {
        let mut host = domain(State::Running);
        host.settle(&Goal::Exist(Desired { disks, ..want(Method::Auto) }), false);
        assert_eq!(host.overlays.len(), 1);
        assert!(host.disks[0].1.ends_with("qcow2") && host.disks[1].1.contains(".before-"));
    }
}

#[test]
fn the_method_is_that_of_the_machines_snapshots_and_both_never_meet() {
    let (internal, external) = (Place::Internal, Place::External);
    let mut qcow2 = domain(OFF);
    qcow2.disks.truncate(1);
    qcow2.others.clear();
    for (has, method, answer) in [
        (&[][..], Method::Auto, "External"),
        (&[], Method::Internal, "Internal"),
        (&[internal], Method::Auto, "Internal"),
        (&[external], Method::Auto, "External"),
        (&[internal], Method::External, "MixedMethods"),
        (&[external], Method::Internal, "MixedMethods"),
        (&[internal, external], Method::Auto, "MixedMethods"),
        (&[], Method::Internal, "PartialInternal"),
    ] {
        let mut host = if answer == "PartialInternal" { domain(OFF) } else { qcow2.clone() };
        for (at, place) in has.iter().enumerate() {
            host = host.with(somebodys(&format!("virsh{at}"), *place, None, None));
        }
        let goal = Goal::Exist(Desired { disks: Selection::Only(vec!["root".into()]), ..want(method) });
        let told = match host.next(&goal) {
            Next::Do(Step::Take { method: UsedMethod::Internal, .. }) => "Internal",
            Next::Do(Step::Prepare { .. }) => "External",
            Next::Refuse(why) => why.word,
            other => panic!("{other:?}"),
        };
        assert_eq!(told, answer, "{has:?} {method:?}");
    }
}

#[test]
fn what_cannot_be_taken_says_why() {
    let named = |disks| Goal::Exist(Desired { disks, ..want(Method::Auto) });
    let mut fixed = domain(OFF);
    fixed.disks.clear();
    assert_eq!(domain(OFF).refused(&exist(Method::Internal)), "RawDisk");
    let mut qcow2 = domain(State::Running);
    qcow2.disks.truncate(1);
    assert_eq!(qcow2.refused(&exist(Method::Internal)), "PartialInternal");
    qcow2.others.clear();
    assert_eq!(qcow2.refused(&exist(Method::Internal)), "GuestIsOn");
    assert_eq!(domain(State::Crashed).refused(&exist(Method::Auto)), "GuestNotSteady");
    assert_eq!(domain(OFF).refused(&named(Selection::Only(vec!["none".into()]))), "DiskNotFound");
    assert_eq!(domain(OFF).refused(&named(Selection::Without(vec!["root".into(), "data".into()]))), "NoDisks");
    assert_eq!(fixed.refused(&exist(Method::Auto)), "NoDisks");
    let foreign = domain(OFF).with(somebodys("before", Place::External, None, None));
    assert_eq!(foreign.refused(&exist(Method::Auto)), "Conflict");
    let answer = |change: &dyn Fn(&mut Seen)| {
        let mut seen = domain(OFF).seen();
        change(&mut seen);
        match next(&exist(Method::Auto), &Observed::Domain(Box::new(seen)), now()) {
            Next::Refuse(why) | Next::Wait { why, .. } => why.word,
            other => panic!("{other:?}"),
        }
    };
    let file = |seen: &mut Seen, file| seen.disks[1].overlay = Overlay::At { path: "/p/x".into(), file };
    assert_eq!(answer(&|seen| file(seen, OverlayFile::Other)), "FileExists");
    assert_eq!(answer(&|seen| file(seen, OverlayFile::Used)), "Lost");
    assert_eq!(answer(&|seen| seen.disks[1].overlay = Overlay::NoPlace), "NoPlace");
    assert_eq!(answer(&|seen| seen.disks[1].capacity = None), "DiskUnreadable");
    assert_eq!(answer(&|seen| seen.can_merge = false), "ExternalUnsupported");
    assert_eq!(answer(&|seen| seen.was_there = true), "Lost");
    assert_eq!(answer(&|seen| seen.machine_goes = true), "MachineTerminating");
    assert_eq!(answer(&|seen| seen.merging = Some("other".into())), "Merging");
    let goal = named(Selection::Only(vec!["data".into()]));
    let mut seen = domain(OFF).seen();
    seen.disks[1].read_only = true;
    assert!(
        matches!(next(&goal, &Observed::Domain(Box::new(seen)), now()), Next::Refuse(why) if why.word == "ReadOnlyDisk")
    );
}

#[test]
fn what_fails_leaves_nothing_over_and_is_tried_again() {
    let mut host = domain(State::Running);
    host.failing = 1;
    assert_eq!(host.settle(&exist(Method::Auto), false), Next::Done);
    assert_eq!(host.counts, BTreeMap::from([("prepare", 4), ("fail", 1), ("discard", 2), ("take", 1)]));
}

#[test]
fn an_overlay_over_a_file_that_the_disk_has_left_is_made_anew() {
    let mut host = domain(OFF);
    host.overlays.insert("/p/shop.root-0a1b2c3d.before-0a1b2c3d".into(), "/p/older".into());
    host.settle(&exist(Method::Auto), true);
    assert_eq!(host.counts["discard"], 1);
}

#[test]
fn the_snapshot_of_a_dead_object_of_the_name_is_taken_over_as_it_is() {
    let mut host = domain(OFF).with(somebodys("before", Place::External, None, Some("old")));
    assert_eq!(host.settle(&exist(Method::Auto), true), Next::Done);
    assert_eq!((host.counts, host.snapshots[0].created), (BTreeMap::from([("claim", 1)]), 7));
}

#[test]
fn deletion_merges_or_says_what_blocks_it_and_what_goes_first() {
    let ours = |parent: Option<&str>| somebodys("before", Place::External, parent, Some(UID));
    let child = |name: &str| somebodys(name, Place::External, Some("before"), None);
    let delete = gone(TeardownPolicy::Delete);
    assert_eq!(domain(State::Running).with(ours(None)).next(&delete), Next::Do(Step::Merge));
    let noted = || Snapshot { unfinished: true, ..ours(None) };
    let clear = Next::Do(Step::Clear { snapshot: "before".into() });
    assert_eq!(domain(State::Running).with(noted()).with(child("a")).next(&delete), clear);
    // In the chain, with one child.
    assert_eq!(domain(State::Running).with(ours(None)).with(child("a")).next(&delete), Next::Do(Step::Merge));
    let two = domain(OFF).with(ours(None)).with(child("a")).with(child("b"));
    let Next::Blocked { why, .. } = two.next(&delete) else { panic!() };
    assert_eq!((why.word, why.message.ends_with("what follows them: a")), ("SeveralChildren", true), "{}", why.message);
    let mut aside = domain(OFF).with(ours(None)).with(child("a")).with(somebodys("c", Place::External, None, None));
    let Next::Blocked { why, .. } = aside.next(&delete) else { panic!() };
    assert_eq!((why.word, why.message.ends_with(": a")), ("NotInActiveChain", true));
    // The end of another branch can go.
    aside.snapshots.retain(|snapshot| snapshot.name != "a");
    assert_eq!(aside.next(&delete), Next::Do(Step::Merge));
    assert_eq!(domain(State::Paused).with(ours(None)).refused(&delete), "GuestPaused");
    let internal = somebodys("before", Place::Internal, None, Some(UID));
    assert_eq!(domain(State::Paused).with(internal).next(&delete), Next::Do(Step::Merge));
}

#[test]
fn a_machine_that_goes_takes_its_snapshots_along_unmerged() {
    let host = domain(State::Running).with(somebodys("before", Place::External, None, Some(UID)));
    let answer = |merged| {
        let seen = Seen { machine_goes: true, merged, ..host.seen() };
        next(&gone(TeardownPolicy::Delete), &Observed::Domain(Box::new(seen)), now())
    };
    assert!(matches!(answer(MergeStage::NotBegun), Next::Wait { why, .. } if why.word == "MachineTerminating"));
    // What libvirt knows of another that follows it comes before its own record goes.
    let below = MergeStage::Below { snapshot: "later".into() };
    let seen = Seen { merged: below, ..host.seen() };
    let answer_of_other = next(&gone(TeardownPolicy::Delete), &Observed::Domain(Box::new(seen)), now());
    assert_eq!(answer_of_other, Next::Do(Step::Mend { snapshot: "later".into() }));
    // Its volume may stay, and would go on in what the guest has left.
    let overlay = "/p/o".to_owned();
    assert_eq!(answer(MergeStage::InQemu { overlay: overlay.clone() }), Next::Do(Step::Drop { overlay }));
    let why = || Reason::new("MachineNotFound", "");
    assert_eq!(next(&gone(TeardownPolicy::Delete), &Observed::NoDomain(why()), now()), Next::Done);
    // An agent that has just begun does not know its domains yet: the snapshot is not gone for that.
    for goal in [gone(TeardownPolicy::Delete), exist(Method::Auto)] {
        assert_eq!(next(&goal, &Observed::Unsettled(why()), now()), Next::Wait { until: None, why: why() });
    }
}

#[test]
fn the_status_tells_the_truth_of_the_tree() {
    let mut host = domain(State::Running).with(somebodys("virsh", Place::External, None, None));
    host.settle(&exist(Method::Auto), false);
    let host = host.with(somebodys("later", Place::External, Some("before"), Some("another")));
    let (goal, seen) = (exist(Method::Auto), Observed::Domain(Box::new(host.seen())));
    let told = |previous: &SnapshotStatus, seen: &Observed, next: &Next, size: u64| {
        let sizes = [("/p/shop.root-0a1b2c3d.qcow2".to_owned(), size)].into();
        let outcome = Outcome::Planned(seen, next);
        status::status(&Look { previous, generation: 1, goal: Some(&goal), outcome, sizes: &sizes, now: now() })
    };
    let first = told(&SnapshotStatus::default(), &seen, &Next::Done, 512);
    let refer = |snapshot: &crds::snapshot::SnapshotRef| (snapshot.kind, snapshot.name.clone());
    assert_eq!(first.parent.as_ref().map(refer), Some((RefKind::Unmanaged, "virsh".into())));
    assert_eq!(first.children.iter().map(refer).collect::<Vec<_>>(), [(RefKind::Managed, "later".into())]);
    assert_eq!(
        (first.ready_to_use, first.current, first.method),
        (Some(true), Some(false), Some(UsedMethod::External))
    );
    assert_eq!(first.disks[0].path, "/p/shop.root-0a1b2c3d.qcow2");
    // Merging its parent into it later gives the file another size on the disk: what it was stays told.
    assert_eq!(told(&first, &seen, &Next::Done, 1024), first);

    let mut without = host.seen();
    (without.snapshots, without.was_there) = (Vec::new(), true);
    let lost = next(&goal, &Observed::Domain(Box::new(without.clone())), now());
    let lost = told(&first, &Observed::Domain(Box::new(without)), &lost, 512);
    assert_eq!((lost.phase, lost.ready_to_use), (Some(SnapshotPhase::Lost), Some(false)));
    assert_eq!(condition(&lost.conditions, Type::Stalled).unwrap().reason, "Lost");
    assert_eq!((lost.created_at, lost.current), (first.created_at, None));
}

prop_compose! {
    fn any_host()(
        state in prop::sample::select(vec![OFF, State::Running, State::Paused, State::Off(Cause::Unknown)]),
        foreign in prop::sample::select(vec![None, Some(Place::External)]),
        failing in 0u32..3,
        there in prop::sample::select(vec![None, Some(UID), Some("old"), Some("")]),
        switched: bool,
    ) -> Model {
        let mut host = domain(state);
        if let Some(place) = foreign {
            host = host.with(somebodys("virsh", place, None, None));
        }
        if let Some(uid) = there {
            let parent = host.current.clone();
            let uid = (!uid.is_empty()).then_some(uid);
            host = host.with(somebodys("before", Place::External, parent.as_deref(), uid));
        }
        host.failing = failing;
        if switched && there.is_none() { host.switch() } else { host }
    }
}

fn any_goal() -> impl Strategy<Value = Goal> {
    prop_oneof![
        Just(exist(Method::Auto)),
        Just(exist(Method::External)),
        prop::sample::select(vec![
            TeardownPolicy::Delete,
            TeardownPolicy::Retain,
            TeardownPolicy::Orphan,
            TeardownPolicy::Keep
        ])
        .prop_map(gone),
    ]
}

proptest! {
    #[test]
    fn it_converges_and_then_has_nothing_to_do(host in any_host(), goal in any_goal()) {
        let mut host = host;
        let last = host.settle(&goal, false);
        let settled = host.clone();
        prop_assert_eq!(host.settle(&goal, false), last.clone());
        prop_assert_eq!(&host, &settled);
        prop_assert!(last == Next::Done || matches!(&last, Next::Refuse(why) if why.word == "Conflict")
            || matches!(&last, Next::Blocked { why, .. } if why.word == "GuestPaused"), "{:?}", last);
    }

    #[test]
    fn a_crash_after_every_effect_ends_in_the_same(host in any_host(), goal in any_goal()) {
        let (mut straight, mut crashing) = (host.clone(), host);
        straight.settle(&goal, false);
        crashing.settle(&goal, true);
        let end = |host: &Model| (host.snapshots.clone(), host.disks.clone(), host.overlays.clone(), host.current.clone());
        prop_assert_eq!(end(&straight), end(&crashing));
    }

    #[test]
    fn nothing_of_anybody_else_is_touched(host in any_host(), goal in any_goal()) {
        let foreign = |host: &Model| -> Vec<Snapshot> {
            host.snapshots.iter().filter(|snapshot| snapshot.uid.is_none()).cloned().collect()
        };
        let mut host = host;
        let before = foreign(&host);
        host.settle(&goal, true);
        let after = foreign(&host);
        prop_assert!(before.iter().all(|snapshot| after.contains(snapshot)));
        // What is let go without a merge becomes somebody's own.
        let retained = matches!(goal, Goal::Vanish { policy: TeardownPolicy::Retain | TeardownPolicy::Orphan, .. });
        prop_assert!(retained || before == after);
    }

    #[test]
    fn a_deleted_snapshot_leaves_no_file(host in any_host(), taken: bool) {
        let mut host = host;
        if host.snapshots.iter().any(|snapshot| snapshot.name == "before") || host.state == State::Paused {
            return Ok(());
        }
        let disks = domain(host.state).disks;
        if taken {
            host.settle(&exist(Method::Auto), false);
        } else if let Next::Do(step) = host.next(&exist(Method::Auto)) {
            host.execute(&step, now());
        }
        prop_assert_eq!(host.settle(&gone(TeardownPolicy::Delete), true), Next::Done);
        prop_assert_eq!((&host.overlays, &host.disks), (&BTreeMap::new(), &disks));
    }
}

//! What a libvirtd leaves that died before it noted what QEMU had done.

use super::*;

#[test]
fn what_libvirt_took_and_did_not_write_down_is_written_down_and_not_taken_again() {
    let mut taken = domain(State::Running);
    taken.settle(&exist(Method::Auto), false);
    let mut host = domain(State::Running).switch();
    assert_eq!(host.settle(&exist(Method::Auto), true), Next::Done);
    assert_eq!(host.counts, BTreeMap::from([("record", 1)]));
    assert_eq!((&host.snapshots, &host.disks), (&taken.snapshots, &taken.disks));
    assert_eq!(host.settle(&gone(TeardownPolicy::Delete), true), Next::Done);
    assert_eq!(host.disks, domain(State::Running).disks);
    // Some of the disks alone is not what was asked for.
    let mut some = domain(State::Running).switch();
    some.disks[1] = domain(State::Running).disks[1].clone();
    assert_eq!(some.refused(&exist(Method::Auto)), "Lost");
    // What once was there and is not any more was removed by somebody.
    let seen = Seen { was_there: true, ..domain(State::Running).switch().seen() };
    assert!(matches!(next(&exist(Method::Auto), &Observed::Domain(Box::new(seen)), now()), Next::Refuse(_)));
}

#[test]
fn the_record_of_a_take_that_failed_and_is_there_is_written_once_more() {
    let mut host = domain(State::Running).with(somebodys("before", Place::External, None, Some(UID)));
    host.attempt = Attempt::Failed { message: "libvirt is gone".into(), again: now() };
    assert_eq!(host.settle(&exist(Method::Auto), false), Next::Done);
    assert_eq!(host.counts, BTreeMap::from([("claim", 1)]));
}

#[test]
fn whether_the_guest_was_on_is_told_by_what_it_wrote_since() {
    for (state, blank, was_on) in
        [(OFF, true, false), (OFF, false, true), (State::Running, true, true), (State::Running, false, true)]
    {
        let mut seen = domain(state).switch().seen();
        for disk in &mut seen.disks {
            let Overlay::At { file, .. } = &mut disk.overlay else { panic!() };
            *file = OverlayFile::On { blank };
        }
        let answer = next(&exist(Method::Auto), &Observed::Domain(Box::new(seen)), now());
        assert!(matches!(answer, Next::Do(Step::Record { on, .. }) if on == was_on), "{state:?} {blank}: {answer:?}");
    }
}

#[test]
fn nothing_is_asked_of_a_libvirt_that_does_not_know_where_the_guest_writes() {
    let there = domain(State::Running).with(somebodys("before", Place::External, None, Some(UID)));
    for host in [domain(State::Running), domain(State::Running).switch(), there] {
        let goals = [exist(Method::Auto), gone(TeardownPolicy::Delete)];
        let is_there = !host.snapshots.is_empty();
        for goal in goals {
            let seen = Seen { adrift: Some("/p/x".into()), ..host.seen() };
            let answer = next(&goal, &Observed::Domain(Box::new(seen)), now());
            let waits =
                matches!(&answer, Next::Wait { why, .. } | Next::Blocked { why, .. } if why.word == "LibvirtBehind");
            let is_done = match goal {
                Goal::Exist(_) => is_there,
                // Nothing of it was ever made.
                Goal::Vanish { .. } => !is_there && host.overlays.is_empty(),
            };
            assert!(if is_done { answer == Next::Done } else { waits }, "{goal:?}: {answer:?}");
        }
    }
}

#[test]
fn what_goes_is_written_down_to_be_merged_unless_the_name_is_somebodys_and_not_again_at_once() {
    let host = domain(State::Running).switch();
    let answer = |change: &dyn Fn(&mut Seen)| {
        let mut seen = host.seen();
        change(&mut seen);
        next(&gone(TeardownPolicy::Delete), &Observed::Domain(Box::new(seen)), now())
    };
    assert!(matches!(answer(&|_| ()), Next::Do(Step::Record { .. })));
    let theirs = somebodys("before", Place::External, None, None);
    assert_eq!(answer(&|seen| seen.snapshots.push(theirs.clone())), Next::Done);
    assert_eq!(answer(&|seen| seen.was_there = true), Next::Done);
    assert_eq!(answer(&|seen| seen.machine_goes = true), Next::Done);
    let failed = |again| Attempt::Failed { message: "busy".into(), again };
    let later = now() + SignedDuration::from_secs(5);
    let waits = answer(&|seen| seen.attempt = failed(later));
    assert_eq!(waits, Next::Blocked { until: Some(later), why: Reason::new("RecordFailed", "busy") });
    assert!(matches!(answer(&|seen| seen.attempt = failed(now())), Next::Do(Step::Record { .. })));
}

/// libvirt wrote what the running guest has before it died, and not the definition.
#[test]
fn a_snapshot_is_neither_written_down_nor_let_go_before_the_definition_is_on_its_overlays() {
    let files = domain(State::Running).disks;
    let mut seen = domain(State::Running).switch().seen();
    (seen.disks[1].file, seen.disks[1].format) = (files[1].1.clone(), files[1].2);
    for goal in [exist(Method::Auto), gone(TeardownPolicy::Delete), gone(TeardownPolicy::Retain)] {
        let answer = next(&goal, &Observed::Domain(Box::new(seen.clone())), now());
        let waits =
            matches!(&answer, Next::Wait { why, .. } | Next::Blocked { why, .. } if why.word == "LibvirtBehind");
        assert!(waits, "{goal:?}: {answer:?}");
    }
    let seen = Seen { machine_goes: true, ..seen };
    let answer = next(&gone(TeardownPolicy::Delete), &Observed::Domain(Box::new(seen)), now());
    assert_eq!(answer, Next::Done, "the machine takes it along");
}

/// How far one disk had come when libvirt died.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Untouched,
    Left,
    Removed,
    Defined,
}

#[test]
fn a_merge_that_libvirt_did_not_note_ends_on_the_files_below_however_far_each_disk_had_come() {
    use Stage::{Defined, Left, Removed, Untouched};
    let parent = |unfinished| Snapshot { unfinished, ..somebodys("older", Place::External, None, None) };
    let mut taken = domain(State::Running).with(parent(false));
    taken.settle(&exist(Method::Auto), false);
    taken.was_there = true;
    let stages = [Untouched, Left, Removed, Defined];
    for (root, data) in stages.into_iter().flat_map(|root| stages.map(|data| (root, data))) {
        let mut host = taken.clone();
        for (at, stage) in [root, data].into_iter().enumerate() {
            let overlay = host.disks[at].1.clone();
            match stage {
                Untouched => continue,
                Left => host.left.insert(overlay),
                Removed | Defined => host.overlays.remove(&overlay).is_some(),
            };
            host.adrift = true;
            host.snapshots[0] = parent(true);
            if stage == Defined {
                host.disks[at] = domain(State::Running).disks[at].clone();
            }
        }
        // It may be that somebody removed the files of one that is to stay.
        for goal in [exist(Method::Auto), gone(TeardownPolicy::Retain)] {
            let next = host.next(&goal);
            assert!(matches!(next, Next::Done | Next::Do(Step::Claim { .. })), "{root:?} {data:?}: {next:?}");
        }
        let last = host.settle(&gone(TeardownPolicy::Delete), true);
        let waits = [root, data].contains(&Untouched) && root != data;
        match last {
            Next::Blocked { why, .. } if waits => assert_eq!(why.word, "LibvirtBehind"),
            Next::Done if !waits => {}
            other => panic!("{root:?} {data:?}: {other:?}"),
        }
        for (at, stage) in [root, data].into_iter().enumerate() {
            let is_below = host.disks[at] == domain(State::Running).disks[at];
            assert!(is_below || stage == Untouched, "{root:?} {data:?}: its next start loses what was written");
        }
        host.adrift = false; // The guest was restarted.
        assert_eq!(host.settle(&gone(TeardownPolicy::Delete), true), Next::Done);
        assert_eq!((host.disks, host.overlays), (domain(State::Running).disks, BTreeMap::new()), "{root:?} {data:?}");
        assert_eq!(host.snapshots, [parent(false)]);
    }
}

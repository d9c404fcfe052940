#![allow(clippy::unwrap_used)]
use super::*;
use crds::conditions::{Type, find};
use crds::storage_volume::{StorageVolumeStatus, VolumePhase};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn want(source: bool) -> Desired {
    let source = source.then(|| Source { url: "http://images/a".into(), sha256: None });
    Desired {
        uid: "u".into(),
        file: "shop.v-u.qcow2".into(),
        format: Format::Qcow2,
        capacity: Some(512),
        full: false,
        source,
    }
}

fn seen() -> Observed {
    Observed { file: File::Absent, part: false, job: Job::None, named_by: vec![], left_over: vec![], overlays: vec![] }
}

fn there() -> File {
    File::There { path: "/p/v".into(), image: Ok(Image { format: Format::Qcow2, capacity: 512 }), allocation: 1 }
}

fn gone(policy: TeardownPolicy) -> Goal {
    Goal::Vanish { policy, uid: "u".into() }
}

#[test]
fn a_file_that_was_there_once_is_not_made_anew() {
    let lost = Observed { file: File::Lost { path: "/p/v".into() }, ..seen() };
    for source in [true, false] {
        assert!(matches!(next(&Goal::Exist(want(source)), &lost, NOW), Next::Refuse { reason: "Lost", .. }));
    }
}

#[test]
fn a_part_of_a_blank_volume_is_thrown_away_and_one_of_an_import_is_not() {
    let half = Observed { part: true, ..seen() };
    assert_eq!(next(&Goal::Exist(want(false)), &half, NOW), Next::Do(Step::Discard));
    assert!(matches!(next(&Goal::Exist(want(true)), &half, NOW), Next::Do(Step::Import(..))));
}

#[test]
fn an_import_that_failed_waits_and_tells_why() {
    let again = NOW + jiff::SignedDuration::from_secs(5);
    let failed = Job::Failed { reason: "ChecksumMismatch", message: "m".into(), again };
    let seen = Observed { job: failed, ..seen() };
    let goal = Goal::Exist(want(true));
    let waits = next(&goal, &seen, NOW);
    assert!(matches!(&waits, Next::Wait { until: Some(until), .. } if *until == again));
    let told =
        status::status(&StorageVolumeStatus::default(), 1, Some(&goal), &status::Outcome::Planned(&seen, &waits), NOW);
    assert_eq!(told.phase, Some(VolumePhase::Failed));
    assert_eq!(find(&told.conditions, Type::Ready).unwrap().reason, "ChecksumMismatch");
    assert!(matches!(next(&goal, &seen, again), Next::Do(Step::Import(..))));
}

#[test]
fn a_file_that_a_domain_names_is_not_unlinked() {
    let named = Observed { file: there(), named_by: vec!["shop.web".into()], ..seen() };
    assert!(matches!(next(&gone(TeardownPolicy::Delete), &named, NOW), Next::Wait { why: Why::Named(_), .. }));
}

proptest! {
    /// Whatever an object is called: its file is one name in its pool's directory, or there is none.
    #[test]
    fn no_name_leads_out_of_the_pool(
        namespace in "[a-z./\\-]{0,8}|[^a]{0,5}", name in "[a-z./\\-]{0,8}|.{0,300}", uid in "[0-9a-f-]{0,36}",
    ) {
        let volume: StorageVolume = serde_json::from_value(serde_json::json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "StorageVolume",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "spec": {"storagePool": "p", "capacity": "1Gi", "format": "Raw"},
        })).unwrap();
        if let Ok(want) = validate(&volume) {
            let path = std::path::Path::new("/pool").join(&want.file);
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/pool")));
            prop_assert!(!want.file.starts_with('.') && crate::names::is_label(&name));
        }
    }

    /// Whatever is seen, only Delete unlinks, and only what no domain names; and each way ends.
    #[test]
    fn data_goes_only_by_a_teardown_that_says_delete(
        part: bool, running: bool, there_is: bool, named: bool, overlays in 0usize..3,
        policy in prop::sample::select(vec![TeardownPolicy::Delete, TeardownPolicy::Retain, TeardownPolicy::Orphan, TeardownPolicy::Keep]),
    ) {
        let mut seen = Observed {
            file: if there_is { there() } else { File::Absent },
            part,
            job: if running { Job::Running { received: 1, total: None } } else { Job::None },
            named_by: if named { vec!["d".into()] } else { vec![] },
            left_over: vec![],
            overlays: if there_is { (0..overlays).map(|at| format!("/p/v.{at}")).collect() } else { vec![] },
        };
        for _ in 0..8 {
            match next(&gone(policy), &seen, NOW) {
                Next::Do(Step::Cancel) => seen.job = Job::None,
                Next::Do(Step::Discard) => seen.part = false,
                Next::Do(Step::Unlink { path }) => {
                    prop_assert!(policy == TeardownPolicy::Delete && !named);
                    if path == "/p/v" {
                        prop_assert!(seen.overlays.is_empty(), "what lies over it is forgotten with it");
                        seen.file = File::Absent;
                    } else {
                        prop_assert_eq!(seen.overlays.remove(0), path);
                    }
                }
                Next::Done => {
                    let kept = there_is && (policy != TeardownPolicy::Delete);
                    prop_assert_eq!(seen.file == there(), kept);
                    return Ok(());
                }
                Next::Wait { why: Why::Named(_), .. } => {
                    prop_assert!(named && policy == TeardownPolicy::Delete && seen.file == there());
                    return Ok(());
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(false, "it does not end");
    }
}

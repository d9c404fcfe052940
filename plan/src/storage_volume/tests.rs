#![allow(clippy::unwrap_used)]
use super::*;
use crds::conditions::{Type, find};
use crds::storage_volume::{StorageVolumeStatus, VolumePhase};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn want(source: bool) -> Desired {
    let source = source.then(|| Source { url: "http://images/a".into(), sha256: None, secret: None, ca_bundle: None });
    Desired {
        uid: "u".into(),
        file: "shop.v-u.qcow2".into(),
        format: Format::Qcow2,
        capacity: Some(512),
        full: false,
        source,
    }
}

fn larger(source: bool) -> Desired {
    Desired { capacity: Some(1024), ..want(source) }
}

fn seen() -> Observed {
    Observed { file: File::Absent, part: false, job: Job::None, users: vec![], left_over: vec![], overlays: vec![] }
}

fn there() -> File {
    File::There { path: "/p/v".into(), image: Ok(Image { format: Format::Qcow2, capacity: 512 }), allocation: 1 }
}

fn user(how: How) -> User {
    User { domain: "shop.web".into(), how }
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
    let goal = Goal::Exist(want(true));
    // The server may answer better by itself; an image that is not what the manifest says waits for somebody.
    for (reason, so) in [("ImportFailed", Type::Reconciling), ("ChecksumMismatch", Type::Stalled)] {
        let seen = Observed { job: Job::Failed { reason, message: "m".into(), again }, ..seen() };
        let waits = next(&goal, &seen, NOW);
        assert!(matches!(&waits, Next::Wait { until: Some(until), .. } if *until == again));
        let outcome = status::Outcome::Planned(&seen, &waits);
        let told = status::status(&StorageVolumeStatus::default(), 1, Some(&goal), &outcome, NOW);
        assert_eq!(told.phase, Some(VolumePhase::Failed));
        assert_eq!(find(&told.conditions, Type::Ready).unwrap().reason, reason);
        let abnormal = [Type::Reconciling, Type::Stalled].map(|kind| find(&told.conditions, kind).is_some());
        assert_eq!(abnormal, [so == Type::Reconciling, so == Type::Stalled]);
        assert!(matches!(next(&goal, &seen, again), Next::Do(Step::Import(..))));
    }
}

#[test]
fn a_file_that_a_domain_names_is_not_unlinked() {
    let named = Observed { file: there(), users: vec![user(How::Off)], ..seen() };
    assert!(matches!(next(&gone(TeardownPolicy::Delete), &named, NOW), Next::Wait { why: Why::Named(_), .. }));
}

#[test]
fn a_volume_grows_through_the_guest_that_runs_with_it_and_else_by_itself() {
    let larger = Goal::Exist(Desired { capacity: Some(1024), ..want(false) });
    let grown = |users: Vec<User>| match next(&larger, &Observed { file: there(), users, ..seen() }, NOW) {
        Next::Do(Step::Grow(growth)) => growth,
        other => panic!("{other:?}"),
    };
    assert_eq!((grown(vec![]).live, grown(vec![user(How::Off)]).capacity), (None, 1024));
    let runs = How::Runs { uuid: "d".into(), target: "vda".into() };
    assert_eq!(grown(vec![user(How::Off), user(runs)]).live, Some(("d".into(), "vda".into())));
}

#[test]
fn a_volume_that_somebody_else_holds_waits_and_stays_usable() {
    let larger = Goal::Exist(Desired { capacity: Some(1024), ..want(false) });
    for (how, reason) in [
        (How::RunsForeign, "InUse"),
        (How::Elsewhere, "InUse"),
        (How::Unknown, "InUse"),
        (How::BelowOverlay, "SnapshotsExist"),
    ] {
        let seen = Observed { file: there(), users: vec![user(how)], ..seen() };
        let waits = next(&larger, &seen, NOW);
        assert!(
            matches!(&waits, Next::Wait { why: Why::Held { reason: told, .. }, .. } if *told == reason),
            "{waits:?}"
        );
        let outcome = status::Outcome::Planned(&seen, &waits);
        let told = status::status(&StorageVolumeStatus::default(), 1, Some(&larger), &outcome, NOW);
        assert_eq!((told.phase, told.path.as_deref()), (Some(VolumePhase::Resizing), Some("/p/v")));
    }
}

#[test]
fn a_volume_is_never_cut() {
    let smaller = Goal::Exist(Desired { capacity: Some(256), ..want(false) });
    let seen = Observed { file: there(), ..seen() };
    assert_eq!(next(&smaller, &seen, NOW), Next::Done);
    let outcome = status::Outcome::Planned(&seen, &Next::Done);
    let told = status::status(&StorageVolumeStatus::default(), 1, Some(&smaller), &outcome, NOW);
    assert!(find(&told.conditions, Type::Ready).unwrap().message.contains("512 bytes"));
}

/// One volume on a model host, which does what the shell does, and how often each kind of effect was carried out.
#[derive(Clone, Debug)]
struct Model {
    seen: Observed,
    /// Imports that fail before one succeeds.
    failing: u32,
    counts: std::collections::BTreeMap<&'static str, u32>,
}

impl Model {
    /// A blank volume has no import.
    fn fit(mut self, goal: &Goal) -> Model {
        if [Goal::Exist(want(false)), Goal::Exist(larger(false))].contains(goal) {
            self.seen.job = Job::None;
        }
        self
    }

    fn execute(&mut self, step: &Step, now: Timestamp) {
        let seen = &mut self.seen;
        let name = match step {
            Step::Create(want) => {
                assert!(seen.file == File::Absent && !seen.part, "made over something");
                assert!([self::want(false), larger(false)].contains(want));
                seen.file = there();
                "create"
            }
            Step::Import(want, source) => {
                assert!(
                    seen.file == File::Absent && !matches!(seen.job, Job::Running { .. }),
                    "imported over something"
                );
                assert!([self::want(true), larger(true)].contains(want) && Some(source) == want.source.as_ref());
                (seen.job, seen.part) = (Job::Running { received: 1, total: Some(9) }, true);
                "import"
            }
            Step::Grow(growth) => {
                let File::There { path, image: Ok(image), allocation } = &seen.file else { panic!("nothing to grow") };
                assert!(*path == growth.path && image.capacity < growth.capacity, "cut");
                let image = Ok(Image { capacity: growth.capacity, ..image.clone() });
                seen.file = File::There { path: path.clone(), image, allocation: *allocation };
                "grow"
            }
            Step::Cancel => {
                assert!(matches!(seen.job, Job::Running { .. }));
                seen.job = Job::None;
                "cancel"
            }
            Step::Discard => {
                assert!(!matches!(seen.job, Job::Running { .. }), "discarded under an import");
                seen.part = false;
                "discard"
            }
            Step::Unlink { path } => {
                assert!(matches!(&seen.file, File::There { path: there, .. } if there == path), "unlinked another");
                assert!(seen.users.is_empty());
                seen.file = File::Absent;
                "unlink"
            }
        };
        if name == "import" && self.failing > 0 {
            self.failing -= 1;
            let again = now + jiff::SignedDuration::from_secs(5);
            self.seen.job = Job::Failed { reason: "ImportFailed", message: String::new(), again };
        }
        *self.counts.entry(name).or_default() += 1;
    }

    /// What an agent forgets when it is killed: its imports.
    fn crash(&mut self) {
        self.seen.job = Job::None;
    }

    /// Runs the plan until it has nothing to do; time passes while it waits, and imports end.
    fn settle(&mut self, goal: &Goal, crash_after_every_effect: bool) -> Next {
        let mut time = NOW;
        let mut crashes = 3;
        for _ in 0..64 {
            time += jiff::SignedDuration::from_secs(1);
            match next(goal, &self.seen, time) {
                Next::Do(step) => self.execute(&step, time),
                Next::Wait { why: Why::Import, .. } => {
                    (self.seen.file, self.seen.part, self.seen.job) = (there(), false, Job::None);
                }
                Next::Wait { until: Some(until), .. } => {
                    assert!(until > time, "waits for what has passed");
                    time = until;
                }
                last @ (Next::Done | Next::Wait { until: None, .. } | Next::Refuse { .. }) => return last,
            }
            // An agent that is always killed never ends an import.
            if crash_after_every_effect && crashes > 0 {
                crashes -= 1;
                self.crash();
            }
        }
        panic!("does not converge: {self:?}");
    }
}

prop_compose! {
    fn any_volume()(
        file in prop_oneof![
            Just(File::Absent),
            Just(File::Lost { path: "/p/v".into() }),
            Just(there()),
            Just(File::There { path: "/p/v".into(), image: Err(Unfit { reason: "NotAFile", message: String::new() }), allocation: 0 }),
        ],
        part: bool,
        job in prop_oneof![
            Just(Job::None),
            Just(Job::Running { received: 1, total: None }),
            Just(Job::Failed { reason: "ImportFailed", message: String::new(), again: NOW + jiff::SignedDuration::from_secs(9) }),
        ],
        users in prop_oneof![
            Just(vec![]),
            Just(vec![user(How::Off)]),
            Just(vec![user(How::Runs { uuid: "d".into(), target: "vda".into() })]),
            Just(vec![user(How::RunsForeign)]),
        ],
        failing in 0u32..3,
    ) -> Model {
        // An import runs only for a file that is not there.
        let job = if file == File::Absent { job } else { Job::None };
        Model { seen: Observed { file, part, job, users, left_over: vec![], overlays: vec![] }, failing, counts: Default::default() }
    }
}

fn any_volume_goal() -> impl Strategy<Value = Goal> {
    prop_oneof![
        any::<bool>().prop_map(|source| Goal::Exist(want(source))),
        any::<bool>().prop_map(|source| Goal::Exist(larger(source))),
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
    fn it_converges_and_then_has_nothing_to_do(host in any_volume(), goal in any_volume_goal()) {
        let mut host = host.fit(&goal);
        let last = host.settle(&goal, false);
        let before = host.counts.clone();
        prop_assert_eq!(host.settle(&goal, false), last);
        prop_assert_eq!(before, host.counts);
    }

    #[test]
    fn a_crash_after_every_effect_changes_neither_the_end_nor_what_was_made_or_removed(
        host in any_volume(), goal in any_volume_goal(),
    ) {
        let mut straight = host.fit(&goal);
        let mut crashing = straight.clone();
        prop_assert_eq!(straight.settle(&goal, false), crashing.settle(&goal, true));
        let end = |host: &Model| (host.seen.file.clone(), host.seen.part && host.seen.file == File::Absent);
        prop_assert_eq!(end(&straight), end(&crashing));
        let done = |host: &Model| ["create", "grow", "unlink"].map(|kind| host.counts.get(kind).copied());
        prop_assert_eq!(done(&straight), done(&crashing));
    }

    /// The agent says that it is done when nothing is left to do, and not before.
    #[test]
    fn a_teardown_is_done_when_the_plan_is(host in any_volume(), goal in any_volume_goal()) {
        let mut host = host.fit(&goal);
        for _ in 0..8 {
            let answer = next(&goal, &host.seen, NOW);
            let outcome = status::Outcome::Planned(&host.seen, &answer);
            let told = status::status(&StorageVolumeStatus::default(), 1, Some(&goal), &outcome, NOW);
            let done = told.teardown.and_then(|teardown| teardown.done);
            let vanishes = matches!(goal, Goal::Vanish { .. });
            prop_assert_eq!(done.is_some(), vanishes && answer == Next::Done, "{:?}", answer);
            let ready = find(&told.conditions, Type::Ready).unwrap().status == "True";
            prop_assert_eq!(ready, !vanishes && answer == Next::Done);
            let Next::Do(step) = answer else { break };
            host.execute(&step, NOW);
        }
    }
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
            users: if named { vec![user(How::Off)] } else { vec![] },
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

#[test]
fn a_secret_never_travels_in_clear() {
    for (url, sound) in [("https://images/a", true), ("http://images/a", false), ("HTTPS://images/a", false)] {
        let volume = serde_json::from_value(serde_json::json!({
            "apiVersion": "virtfleet.dev/v1alpha1", "kind": "StorageVolume",
            "metadata": {"name": "v", "namespace": "shop", "uid": "u"},
            "spec": {"storagePool": "p", "source": {"http": {"url": url, "insecure": true, "secret": "login"}}},
        }));
        let answer = validate(&volume.unwrap());
        assert_eq!(answer.as_ref().err().map(|(reason, _)| *reason), (!sound).then_some("InvalidSource"), "{url}");
    }
}

//! A StorageVolume on this host: resolve, observe, plan, execute, and again until nothing is left to do; then report.

use crate::chains;
use crate::context::{Context, MANAGER};
use crate::files;
use crate::import::{self, Failure, Place};
use crate::jobs::Progress;
use crds::TeardownPolicy;
use crds::host::HostPoolState;
use crds::storage_volume::{StorageVolume, StorageVolumeStatus};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use libvirt_xml::facts;
use libvirt_xml::snapshot::Snapshot;
use plan::names;
use plan::storage_volume::status::{self, Outcome};
use plan::storage_volume::{Desired, File, Goal, Next, Observed, Source, Step, Why, next, validate};
use shell::Error;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Effects of one pass at most.
const EFFECTS: usize = 8;
/// Progress is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// One pass.
pub async fn pass(volume: Arc<StorageVolume>, context: Arc<Context>) -> Result<Case, Error> {
    let goal = match goal(&volume) {
        // The controller has not decided yet how it goes.
        None => return Ok(Case::Converged),
        Some(Err((reason, message))) => {
            return report(&context, &volume, None, &Outcome::Invalid { reason, message }, Case::Converged).await;
        }
        Some(Ok(goal)) => goal,
    };
    let dir = match pool_dir(&context, &volume) {
        Ok(dir) => dir,
        Err(message) => {
            if let Some(until) = context.settles_until() {
                return Ok(Case::Until(until));
            }
            return report(&context, &volume, Some(&goal), &Outcome::NoPool { message }, Case::Dependency).await;
        }
    };
    for _ in 0..EFFECTS {
        let seen = observe(&context, &volume, &goal, &dir).await?;
        let answer = next(&goal, &seen, Timestamp::now());
        let Next::Do(step) = answer else {
            let case = case(&answer);
            return report(&context, &volume, Some(&goal), &Outcome::Planned(&seen, &answer), case).await;
        };
        if !is_fresh(&context, &volume).await? {
            return Ok(Case::Until(Timestamp::now() + SignedDuration::from_secs(1)));
        }
        if let Err(Failure { reason, message }) = execute(&context, &volume, &dir, step).await {
            let outcome = Outcome::Failed { reason, message: message.clone() };
            report(&context, &volume, Some(&goal), &outcome, Case::Transient).await?;
            return Err(Error::Passing { act: "make the volume", message });
        }
    }
    Err(Error::Passing { act: "make the volume", message: format!("{EFFECTS} effects and no end") })
}

fn goal(volume: &StorageVolume) -> Option<Result<Goal, (&'static str, String)>> {
    if volume.metadata.deletion_timestamp.is_none() {
        return Some(validate(volume).map(Goal::Exist));
    }
    let teardown = volume.status.as_ref()?.teardown.as_ref()?;
    let uid = teardown.uid.clone().filter(|uid| Some(uid) == volume.metadata.uid.as_ref())?;
    Some(Ok(Goal::Vanish { policy: teardown.policy?, uid }))
}

fn case(next: &Next) -> Case {
    match next {
        Next::Done | Next::Refuse { .. } | Next::Do(_) => Case::Converged,
        Next::Wait { until: Some(until), .. } => Case::Until(*until),
        Next::Wait { why: Why::Import, .. } => Case::Converged,
        Next::Wait { why: Why::Named(_) | Why::Retry { .. }, .. } => Case::Dependency,
    }
}

/// The pool's directory, when the pool is ready here.
fn pool_dir(context: &Context, volume: &StorageVolume) -> Result<PathBuf, String> {
    let name = &volume.spec.storage_pool;
    let pool = context.stores.pools.get(&ObjectRef::new(name)).ok_or(format!("there is no StoragePool {name}"))?;
    let entry = context.pools.lock().get(name).cloned().filter(|entry| Some(&entry.uid) == pool.metadata.uid.as_ref());
    let ready = entry.as_ref().is_some_and(|entry| entry.state == HostPoolState::Ready);
    if !ready || !context.marks.are_known() {
        let why = entry.and_then(|entry| entry.message).unwrap_or_else(|| "it is not ready on this host".into());
        return Err(format!("pool {name}: {why}"));
    }
    Ok(PathBuf::from(&pool.spec.dir.path))
}

async fn observe(context: &Context, volume: &StorageVolume, goal: &Goal, dir: &Path) -> Result<Observed, Error> {
    let (namespace, name) = (volume.namespace().unwrap_or_default(), volume.name_any());
    let uid = volume.uid().unwrap_or_default();
    let broken = |error: std::io::Error| Error::Passing { act: "look into the pool", message: error.to_string() };
    let own = names::volume_file(&namespace, &name, &uid, volume.spec.format);
    let in_pool = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        path.parent() == Some(dir) && names::is_volume_file(&file, &namespace, &name)
    };
    // A domain may be on a snapshot's overlay over the volume's own file.
    let base = |path: PathBuf| {
        let file = path.file_name()?.to_string_lossy().into_owned();
        let stem = names::stem(&file).filter(|stem| names::is_stem_of(stem, &namespace, &name))?;
        let own = || dir.join(format!("{stem}.{}", volume.spec.format.as_str()));
        (path.parent() == Some(dir)).then(|| if in_pool(&path) { path.clone() } else { own() })
    };
    let known = volume.status.as_ref().and_then(|status| status.path.as_ref()).map(PathBuf::from).filter(in_pool);
    let path = known.clone().unwrap_or_else(|| dir.join(&own));
    let file = match (files::look(&path).map_err(broken)?, known) {
        (Some(there), _) => there,
        (None, Some(known)) => File::Lost { path: known.display().to_string() },
        // What a domain of ours has is taken as it is: its object was lost, not its data.
        (None, None) => match adopted(context, &namespace, base).await? {
            Some(path) => files::look(&path).map_err(broken)?.unwrap_or(File::Absent),
            None => File::Absent,
        },
    };
    let taken = match &file {
        File::There { path, .. } | File::Lost { path } => path.clone(),
        File::Absent => String::new(),
    };
    let left_over = files::of_volume(dir, &namespace, &name).map_err(broken)?;
    let goes = matches!((goal, &file), (Goal::Vanish { policy: TeardownPolicy::Delete, .. }, File::There { .. }));
    let (mut users, mut overlays) = (Vec::new(), Vec::new());
    if goes {
        overlays = chains::over(Path::new(&taken)).map_err(broken)?.into_iter().map(|overlay| overlay.path).collect();
        users = named_by(context, Path::new(&taken)).await?;
        // In a shared pool the domain may be another host's.
        let machines = volume.status.iter().flat_map(|status| &status.used_by);
        users.extend(machines.map(|machine| names::domain(&namespace, machine)));
        users.sort();
        users.dedup();
    }
    Ok(Observed {
        named_by: users,
        overlays,
        left_over: left_over.into_iter().filter(|file| *file != own && !taken.ends_with(file)).collect(),
        part: files::part(dir, &uid).exists(),
        job: context.jobs.of(&uid),
        file,
    })
}

/// A file of this volume's name in a domain with our mark of the same namespace.
async fn adopted(
    context: &Context,
    namespace: &str,
    base: impl Fn(PathBuf) -> Option<PathBuf>,
) -> Result<Option<PathBuf>, Error> {
    for uuid in context.marks.of_namespace(&context.cluster, namespace) {
        if let Some(path) = files_of(context, &uuid).await?.into_iter().map(PathBuf::from).find_map(&base) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Domains, running or not and whosever, that name the file or one of the volume's that lie over it, also in a snapshot.
async fn named_by(context: &Context, path: &Path) -> Result<Vec<String>, Error> {
    let (path, mut users) = (path.display().to_string(), Vec::new());
    for domain in context.libvirt.domains().await.map_err(passing)? {
        if files_of(context, &domain.uuid).await?.iter().any(|file| names::is_same_volume(file, &path)) {
            users.push(domain.name);
        }
    }
    Ok(users)
}

async fn files_of(context: &Context, uuid: &str) -> Result<Vec<String>, Error> {
    let unreadable = |error: libvirt_xml::Error| Error::Passing { act: "read a domain", message: error.to_string() };
    let Some(detail) = context.libvirt.domain(uuid).await.map_err(passing)? else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for xml in [Some(detail.inactive_xml), detail.live_xml].iter().flatten() {
        let facts = facts(xml).map_err(unreadable)?;
        files.extend(facts.layered.iter().flat_map(|file| chains::below(file)));
        files.extend(facts.files);
    }
    if detail.snapshots > 0 {
        for snapshot in context.libvirt.snapshots(uuid).await.map_err(passing)?.unwrap_or_default() {
            files.extend(Snapshot::parse(&snapshot.xml).map_err(unreadable)?.files);
        }
    }
    Ok(files)
}

fn passing(error: libvirt::Error) -> Error {
    Error::Passing { act: "ask libvirt", message: error.to_string() }
}

/// Nothing is made or removed on a manifest that was not read just now.
async fn is_fresh(context: &Context, volume: &StorageVolume) -> Result<bool, Error> {
    let api: Api<StorageVolume> = beside(&context.client, volume);
    let fresh = api.get_opt(&volume.name_any()).await.map_err(Error::api("read the volume afresh"))?;
    let binding = |volume: &StorageVolume| volume.status.as_ref().and_then(|status| status.host.clone());
    Ok(fresh.is_some_and(|fresh| {
        fresh.uid() == volume.uid() && binding(&fresh) == binding(volume) && goal(&fresh) == goal(volume)
    }))
}

async fn execute(context: &Arc<Context>, volume: &StorageVolume, dir: &Path, step: Step) -> Result<(), Failure> {
    let (dir, uid) = (dir.to_owned(), volume.uid().unwrap_or_default());
    let name = format!("{}/{}", volume.namespace().unwrap_or_default(), volume.name_any());
    let blocking = |act: &'static str, work: Box<dyn FnOnce() -> Result<(), Failure> + Send>| async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(Failure { reason: "FileError", message: format!("{act}: {error}") }))
    };
    let verb = match step {
        Step::Create(want) => {
            blocking("create", Box::new(move || files::create(&dir, &want))).await?;
            refresh(context, volume).await;
            "create"
        }
        Step::Import(want, source) => {
            begin(context, volume, dir, want, source);
            "import"
        }
        Step::Cancel => {
            context.jobs.cancel(&uid);
            "cancel the import"
        }
        Step::Discard => {
            blocking("discard", Box::new(move || files::discard(&dir, &uid).map_err(|e| Failure::io("discard", &e))))
                .await?;
            "discard the part"
        }
        Step::Unlink { path } => {
            let path = PathBuf::from(path);
            blocking("unlink", Box::new(move || files::unlink(&path).map_err(|e| Failure::io("unlink", &e)))).await?;
            refresh(context, volume).await;
            "unlink"
        }
    };
    tracing::info!("volume {name}: {verb}");
    Ok(())
}

/// Lets libvirt see what came or went; it is of no other consequence.
async fn refresh(context: &Context, volume: &StorageVolume) {
    let uuid = names::pool_uuid(&context.cluster, &volume.spec.storage_pool, &context.host);
    if let Err(error) = context.libvirt.refresh_pool(&uuid).await {
        tracing::debug!("refreshing a pool: {error}");
    }
}

fn begin(context: &Arc<Context>, volume: &StorageVolume, dir: PathBuf, want: Desired, source: Source) {
    let progress = Arc::new(Progress::default());
    let (uid, object) = (want.uid.clone(), ObjectRef::from_obj(volume));
    let (held, shared, pool) = (context.clone(), progress.clone(), volume.clone());
    let (begin, begun) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        // An end before its beginning was noted would be lost.
        let _ = begun.await;
        let place = Place { dir: &dir, cluster: &held.cluster, host: &held.host, allowed: &held.args.import_allow };
        let work = import::import(&place, &want, &source, &shared);
        let told = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(TOLD_EVERY).await;
                let now = shared.received.load(Ordering::Relaxed);
                if now != before {
                    before = now;
                    held.queues.volumes.push(object.clone());
                }
            }
        };
        let result = tokio::select! {
            result = work => result,
            () = told => Ok(()),
        };
        if let Err(failure) = &result {
            tracing::warn!("import of {object}: {}", failure.message);
        }
        held.jobs.end(&want.uid, result);
        refresh(&held, &pool).await;
        held.queues.volumes.push(object.clone());
    });
    context.jobs.begin(&uid, progress, task.abort_handle());
    let _ = begin.send(());
}

async fn report(
    context: &Context,
    volume: &StorageVolume,
    goal: Option<&Goal>,
    outcome: &Outcome<'_>,
    case: Case,
) -> Result<Case, Error> {
    let api: Api<StorageVolume> = beside(&context.client, volume);
    let none = StorageVolumeStatus::default();
    let previous = volume.status.as_ref().unwrap_or(&none);
    let generation = volume.metadata.generation.unwrap_or_default();
    let wanted = status::status(previous, generation, goal, outcome, Timestamp::now());
    if apply(&api, MANAGER, volume, (&status::ours(previous), &wanted), &context.metrics).await? {
        context.events.turned(volume, &previous.conditions, &wanted.conditions).await;
    }
    Ok(case)
}

//! A StorageVolume on this host: resolve, observe, plan, execute, and again until nothing is left to do; then report.

mod users;

use crate::chains;
use crate::context::{Context, MANAGER};
use crate::files;
use crate::import::{self, Failure, Place};
use crate::jobs::{Progress, TOLD_EVERY};
use crate::lanes::Turn;
use crate::pool_directory;
use crds::host::HostPoolState;
use crds::storage_volume::{StorageVolume, StorageVolumeStatus};
use crds::{StoragePool, TeardownPolicy};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use plan::names;
use plan::storage_volume::secret::Credential;
use plan::storage_volume::status::{self, Outcome};
use plan::storage_volume::{Desired, File, Goal, Growth, Job, Next, Observed, Source, Step, Why, next, validate};
use shell::Error;
use shell::retry::Case;
use shell::status::{apply, beside};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Effects of one pass at most: a file and, when it goes, the overlays over it, of which QEMU bears 200.
const EFFECTS: usize = 256;

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
            if keeps_data(&goal) && pool(&context, &volume).is_none() {
                context.jobs.cancel(&volume.uid().unwrap_or_default()).await;
                return report(
                    &context,
                    &volume,
                    Some(&goal),
                    &Outcome::Planned(&NOTHING, &Next::Done),
                    Case::Converged,
                )
                .await;
            }
            return report(&context, &volume, Some(&goal), &Outcome::NoPool { message }, Case::Dependency).await;
        }
    };
    let _turn = turn(&context, &volume).await;
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
        let usable = matches!(step, Step::Grow(_));
        if let Err(Failure { reason, message }) = execute(&context, &volume, &dir, step).await {
            let outcome = Outcome::Failed { usable, reason, message: message.clone() };
            report(&context, &volume, Some(&goal), &outcome, Case::Transient).await?;
            return Err(Error::Passing { act: "make the volume", message });
        }
    }
    Err(Error::Passing { act: "make the volume", message: format!("{EFFECTS} effects and no end") })
}

/// A volume that a machine writes to is worked on in the machine's lane.
async fn turn(context: &Context, volume: &StorageVolume) -> Option<Turn> {
    let claim = volume.status.as_ref()?.claimed_by.as_ref()?;
    Some(context.lanes.turn(&volume.namespace().unwrap_or_default(), &claim.name).await)
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
        Next::Wait { why: Why::Named(_) | Why::Held { .. } | Why::Retry { .. }, .. } => Case::Dependency,
    }
}

/// What is looked at of a volume whose pool is no more.
const NOTHING: Observed = Observed {
    file: File::Absent,
    part: false,
    job: Job::None,
    users: Vec::new(),
    left_over: Vec::new(),
    overlays: Vec::new(),
};

/// Whether the volume goes without its file: then it needs no pool for that.
fn keeps_data(goal: &Goal) -> bool {
    match goal {
        Goal::Exist(_) => false,
        Goal::Vanish { policy, .. } => *policy != TeardownPolicy::Delete,
    }
}

fn pool(context: &Context, volume: &StorageVolume) -> Option<Arc<StoragePool>> {
    context.stores.pools.get(&ObjectRef::new(&volume.spec.storage_pool))
}

/// The pool's directory, when the pool is ready here.
fn pool_dir(context: &Context, volume: &StorageVolume) -> Result<PathBuf, String> {
    let name = &volume.spec.storage_pool;
    let none = || format!("there is no StoragePool {name}; make it again with the path that it had");
    let pool = pool(context, volume).ok_or_else(none)?;
    let entry = context.pools.lock().get(name).cloned().filter(|entry| Some(&entry.uid) == pool.metadata.uid.as_ref());
    let ready = entry.as_ref().is_some_and(|entry| entry.state == HostPoolState::Ready);
    if !ready || !context.marks.are_known() {
        let why = entry.and_then(|entry| entry.message).unwrap_or_else(|| "it is not ready on this host".into());
        return Err(format!("pool {name}: {why}"));
    }
    let dir = PathBuf::from(&pool.spec.dir.path);
    if !pool_directory::is_marked(&dir) {
        context.queues.pools.push(ObjectRef::new(name));
        return Err(format!("pool {name}: its directory {} is gone; is its file system mounted?", dir.display()));
    }
    Ok(dir)
}

async fn observe(context: &Context, volume: &StorageVolume, goal: &Goal, dir: &Path) -> Result<Observed, Error> {
    let (namespace, name) = (volume.namespace().unwrap_or_default(), volume.name_any());
    let uid = volume.uid().unwrap_or_default();
    // Before its files: what an import that has ended meanwhile left is seen below.
    let job = context.jobs.of(&uid);
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
    let left_over = files::of_volume(dir, &namespace, &name).map_err(broken)?;
    let mut known = volume.status.as_ref().and_then(|status| status.path.as_ref()).map(PathBuf::from);
    // Without any file of its name there is nothing to take, and no domain is asked: one that hangs would delay every new volume beside it.
    if known.is_none() && !left_over.is_empty() && !dir.join(&own).exists() {
        // What a domain of ours has is taken as it is: its object was lost, not its data.
        known = users::adopted(context, &namespace, base).await?;
    }
    let file = files::find(&dir.join(&own), known, in_pool).map_err(broken)?;
    let taken = match &file {
        File::There { path, .. } | File::Lost { path } => path.clone(),
        File::Absent => String::new(),
    };
    let concerned = match (goal, &file) {
        (Goal::Vanish { policy, .. }, File::There { .. }) => *policy == TeardownPolicy::Delete,
        (Goal::Exist(want), File::There { image: Ok(image), .. }) => want.capacity.is_some_and(|c| c > image.capacity),
        (Goal::Exist(_), File::There { image: Err(_), .. }) | (_, File::Absent | File::Lost { .. }) => false,
    };
    let (mut users, mut overlays) = (Vec::new(), Vec::new());
    if concerned {
        overlays = chains::over(Path::new(&taken)).map_err(broken)?.into_iter().map(|overlay| overlay.path).collect();
        users = users::users(context, volume, Path::new(&taken)).await?;
    }
    Ok(Observed {
        users,
        overlays,
        left_over: left_over.into_iter().filter(|file| *file != own && !taken.ends_with(file)).collect(),
        part: files::part(dir, &uid).exists(),
        job,
        file,
    })
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
        Step::Grow(Growth { path, capacity, live: Some((uuid, target)), .. }) => {
            let grown = context.libvirt.grow_disk(&uuid, &target, capacity).await;
            grown.map_err(|error| Failure { reason: "GrowFailed", message: format!("{path}: {error}") })?;
            "grow under its guest"
        }
        Step::Grow(Growth { path, format, capacity, full, live: None }) => {
            let work = move || files::grow(Path::new(&path), format, capacity, full);
            blocking("grow", Box::new(work)).await?;
            refresh(context, volume).await;
            "grow"
        }
        Step::Import(want, source) => {
            let credential = match &source.secret {
                None => None,
                Some(named) => match import::secret::read(&context.client, &context.host, &uid, named).await {
                    Ok(credential) => Some(credential),
                    Err(failure) => {
                        context.jobs.refuse(&uid, failure);
                        return Ok(());
                    }
                },
            };
            begin(context, volume, dir, (want, source, credential));
            "import"
        }
        Step::Cancel => {
            context.jobs.cancel(&uid).await;
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

fn begin(
    context: &Arc<Context>,
    volume: &StorageVolume,
    dir: PathBuf,
    (want, source, credential): (Desired, Source, Option<Credential>),
) {
    let progress = Arc::new(Progress::default());
    let (uid, object) = (want.uid.clone(), ObjectRef::from_obj(volume));
    let (held, shared, pool) = (context.clone(), progress.clone(), volume.clone());
    context.jobs.begin(&uid, progress, |at_work| async move {
        let place = Place {
            dir: &dir,
            cluster: &held.cluster,
            host: &held.host,
            allowed: &held.args.import_allow,
            credential: credential.as_ref(),
        };
        let work = import::import(&place, &want, &source, &shared, at_work);
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
}

async fn report(
    context: &Context,
    volume: &StorageVolume,
    goal: Option<&Goal>,
    outcome: &Outcome<'_>,
    case: Case,
) -> Result<Case, Error> {
    if context.host_object().is_none() {
        // As of machines: without a Host this one is lost, says the controller.
        return Ok(Case::Dependency);
    }
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

//! Carries one step out. No policy: the plan decided.

use super::observe::Sight;
use super::tell_others;
use crate::chains;
use crate::context::Context;
use crate::files;
use crate::import::Failure;
use crds::snapshot::{Snapshot, UsedMethod};
use crds::storage_volume::Format;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use libvirt::Take;
use libvirt_xml::snapshot::{Part, Record, Request, claimed, finished, kept_below, without};
use libvirt_xml::{DiskFormat, Merged, without_merged};
use plan::snapshot::{Observed, Step};
use shell::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Carries it out. That it was not to be done is remembered for the plan.
///
/// # Errors
/// What stands in the way of remembering it: a record that cannot be understood.
pub async fn execute(context: &Arc<Context>, of: &Snapshot, step: Step, sight: &Sight) -> Result<(), Error> {
    let uid = of.uid().unwrap_or_default();
    let verb = match step {
        Step::Prepare { path, below, format, capacity } => {
            let done = blocking(move || prepare(Path::new(&path), &below, format, capacity)).await;
            if let Err(message) = &done {
                context.attempts.end(&uid, Err(message.clone()));
            }
            "prepare"
        }
        Step::Discard { path } => {
            let file = PathBuf::from(&path);
            let done = blocking(move || discard(&file)).await;
            match (done.map_err(|message| Error::Passing { act: "remove a blank overlay", message })?, sight.run) {
                (Discarded::Gone, _) => "discard",
                (Discarded::Held, Some(run)) => {
                    context.attempts.hold(&sight.uuid, run, path);
                    "leave a blank overlay to QEMU"
                }
                (Discarded::Held, None) => {
                    let message = format!("somebody has {path} open");
                    return Err(Error::Passing { act: "remove a blank overlay", message });
                }
            }
        }
        Step::Take { request, method } => {
            let taken = take(context, &sight.uuid, &request, method).await;
            context.attempts.end(&uid, taken);
            "take"
        }
        Step::Record { request, on } => {
            let recorded = record(context, sight, &request, on).await;
            context.attempts.end(&uid, recorded);
            "write libvirt's record"
        }
        Step::Claim { uid: whose } => {
            rewrite(context, sight, &of.name_any(), |xml| claimed(xml, whose.as_deref())).await?;
            context.attempts.end(&uid, Ok(()));
            "claim"
        }
        Step::Settle => {
            settle(context, sight).await?;
            "take the definition off what was merged"
        }
        Step::Drop { overlay } => {
            drop_left(context, sight, overlay).await?;
            "remove an overlay that the guest has left"
        }
        Step::Mend { snapshot } => {
            rewrite(context, sight, &snapshot, |xml| kept_below(xml, &sight.merged)).await?;
            "write down that another is kept below it"
        }
        Step::Clear { snapshot } => {
            rewrite(context, sight, &snapshot, finished).await?;
            "take a note of its merge off the one before it"
        }
        Step::Strike => {
            let merged: Vec<_> = sight.merged.iter().map(|merged| merged.overlay.as_str()).collect();
            rewrite(context, sight, &of.name_any(), |xml| without(xml, &merged)).await?;
            "take what was merged out of its record"
        }
        Step::Forget => {
            let forgotten = context.libvirt.forget_snapshot(&sight.uuid, &of.name_any()).await;
            forgotten.map_err(|error| Error::Passing { act: "remove a record", message: error.to_string() })?;
            "remove its record"
        }
        Step::Merge => {
            merge(context, of, sight);
            "merge"
        }
    };
    tracing::info!("snapshot {}/{}: {verb}", of.namespace().unwrap_or_default(), of.name_any());
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|failure| failure.message),
        Err(error) => Err(error.to_string()),
    }
}

/// An overlay while it is being made.
pub fn part(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.part", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Makes a blank overlay, closed to others from its first instant, that gets its name when it is whole and only if nothing has it.
fn prepare(path: &Path, below: &str, format: Format, capacity: u64) -> Result<(), Failure> {
    let part = part(path);
    files::unlink(&part).map_err(|error| Failure::io("make the overlay", &error))?;
    drop(files::open_part(&part, true).map_err(|error| Failure::io("make the overlay", &error))?);
    // `-u`: the file below is in use, and was looked at by us.
    let words = ["create", "-q", "-u", "-f", "qcow2", "-F", format.as_str(), "-b", below];
    files::qemu_img(&words, &part, &[&capacity.to_string()])?;
    files::give_name(&part, path).map_err(|error| Failure::io("give the overlay its name", &error))
}

/// What became of a blank overlay.
enum Discarded {
    Gone,
    /// A QEMU has it open.
    Held,
}

/// Removes a blank overlay, and what is left of one that was being made. One that was written to since is left.
fn discard(path: &Path) -> Result<Discarded, Failure> {
    let failed = |error: std::io::Error| Failure::io("remove the overlay", &error);
    if path.exists() && chains::is_blank(path).map_err(failed)? {
        // QEMU locks what it opens: it may be on it though libvirt, which died, does not know.
        match files::qemu_img(&["info", "-f", "qcow2"], path, &[]) {
            Err(failure) if failure.message.contains(" lock") => return Ok(Discarded::Held),
            other => other?,
        }
        files::unlink(path).map_err(failed)?;
    }
    files::unlink(&part(path)).map_err(failed)?;
    Ok(Discarded::Gone)
}

async fn take(context: &Context, uuid: &str, request: &Request, method: UsedMethod) -> Result<(), String> {
    let xml = request.render().map_err(|error| error.to_string())?;
    let how = match method {
        UsedMethod::Internal => Take::Internal,
        UsedMethod::External => Take::External,
    };
    context.libvirt.take_snapshot(uuid, xml, how).await.map_err(|error| error.to_string())
}

/// libvirt died after it had taken it and before it wrote that down.
async fn record(context: &Context, sight: &Sight, request: &Request, on: bool) -> Result<(), String> {
    let Observed::Domain(seen) = &sight.observed else { return Err("there is no domain".into()) };
    let paths = request.disks.iter().filter_map(|disk| match &disk.part {
        Part::External { overlay } => Some(overlay),
        Part::Excluded | Part::Internal => None,
    });
    let (mut overlays, mut created) = (Vec::new(), 0);
    for path in paths {
        let (below, format) =
            chains::under(path).map_err(|error| error.to_string())?.ok_or(format!("{path} lies over nothing"))?;
        let format = match format.ok_or(format!("{path} does not say what it lies over"))? {
            Format::Raw => DiskFormat::Raw,
            Format::Qcow2 => DiskFormat::Qcow2,
        };
        overlays.push(Merged { overlay: path.clone(), below, format });
        created = created.max(made(Path::new(path)));
    }
    let (parent, inactive_xml) = (seen.current.as_deref(), sight.inactive_xml.as_str());
    let record = Record { created, parent, on, inactive_xml, overlays: &overlays };
    let xml = request.record(&record).map_err(|error| error.to_string())?;
    context.libvirt.redefine_snapshot(&sight.uuid, xml, true).await.map_err(|error| error.to_string())
}

/// When a file was made: an overlay is made right before it is needed. Now, where the file system does not say.
fn made(path: &Path) -> i64 {
    let made = std::fs::metadata(path).and_then(|metadata| metadata.created());
    let made = made.ok().and_then(|made| Timestamp::try_from(made).ok());
    made.unwrap_or_else(Timestamp::now).as_second()
}

/// Writes libvirt's record of a snapshot again, changed. It is read afresh: one that libvirt has removed since must not come back.
async fn rewrite(
    context: &Context,
    sight: &Sight,
    name: &str,
    change: impl FnOnce(&str) -> Result<String, libvirt_xml::Error>,
) -> Result<(), Error> {
    let failed = |message: String| Error::Passing { act: "write the snapshot's record", message };
    let records = context.libvirt.snapshots(&sight.uuid).await.map_err(|error| failed(error.to_string()))?;
    let record = records.into_iter().flatten().find(|record| record.name == name);
    let record = record.ok_or_else(|| failed("it is gone".into()))?;
    let xml = change(&record.xml).map_err(|error| failed(error.to_string()))?;
    let written = context.libvirt.redefine_snapshot(&sight.uuid, xml, record.current).await;
    written.map_err(|error| failed(error.to_string()))
}

/// The guest never goes back to it, unless it was started anew since the look.
async fn drop_left(context: &Context, sight: &Sight, overlay: String) -> Result<(), Error> {
    let failed = |message: String| Error::Passing { act: "remove a merged overlay", message };
    let now = context.libvirt.domain(&sight.uuid).await.map_err(|error| failed(error.to_string()))?;
    let run = now.and_then(|detail| detail.summary.id);
    if run.is_some() && run != sight.run {
        return Err(failed("the guest was started anew".into()));
    }
    let unlink = move || files::unlink(Path::new(&overlay)).map_err(|error| Failure::io("remove it", &error));
    blocking(unlink).await.map_err(failed)
}

/// Of the definition as it is now: it may have been changed since the look.
async fn settle(context: &Context, sight: &Sight) -> Result<(), Error> {
    let failed = |message: String| Error::Passing { act: "take the definition off what was merged", message };
    let now = context.libvirt.domain(&sight.uuid).await.map_err(|error| failed(error.to_string()))?;
    let Some(now) = now else { return Ok(()) };
    match without_merged(&now.inactive_xml, &sight.merged).map_err(|error| failed(error.to_string()))? {
        Some(xml) => context.libvirt.define(xml).await.map_err(|error| failed(error.to_string())),
        None => Ok(()),
    }
}

/// libvirt goes on with it whatever becomes of this agent.
fn merge(context: &Arc<Context>, of: &Snapshot, sight: &Sight) {
    let (uid, name, uuid) = (of.uid().unwrap_or_default(), of.name_any(), sight.uuid.clone());
    let machine = (of.namespace().unwrap_or_default(), of.spec.virtual_machine.clone());
    context.attempts.begin_merge(&uid, machine, name.clone());
    let (context, of) = (context.clone(), of.clone());
    tokio::spawn(async move {
        let merged = context.libvirt.delete_snapshot(&uuid, &name).await;
        if let Err(error) = &merged {
            tracing::warn!("merging snapshot {}/{name}: {error}", of.namespace().unwrap_or_default());
        }
        context.attempts.end(&uid, merged.map_err(|error| error.to_string()));
        context.queues.snapshots.push(ObjectRef::from_obj(&of));
        tell_others(&context, &of);
    });
}

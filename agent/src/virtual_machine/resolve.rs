//! Looks up what a manifest names. What is missing is a value, not an error.

use crate::chains;
use crate::context::Context;
use crds::StoragePool;
use crds::conditions::{self, Type};
use crds::storage_volume::{Claim, Format, StorageVolume, VolumePhase};
use crds::virtual_machine::VirtualMachine;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use libvirt_xml::Accelerator;
use plan::names;
use plan::virtual_machine::{Resolved, Volume, template, uses};
use shell::Error;
use shell::status::beside;
use std::collections::BTreeMap;
use std::path::Path;

/// What the manifest names and what the host is; `None` while libvirt has told nothing of the host.
///
/// # Errors
/// The API server's answer.
pub async fn resolve(context: &Context, vm: &VirtualMachine) -> Result<Option<Resolved>, Error> {
    let Some(facts) = context.facts.lock().clone() else { return Ok(None) };
    let mut volumes = BTreeMap::new();
    for name in uses::volumes(vm).into_keys() {
        if let Some(volume) = find(context, vm, &name).await? {
            volumes.insert(name, resolved(context, vm, &volume));
        }
    }
    Ok(Some(Resolved {
        volumes,
        cluster: context.cluster.clone(),
        arch: facts.capabilities.guest_arch.clone(),
        kvm: facts.capabilities.accelerators.contains(&Accelerator::Kvm),
        force_emulation: context.args.force_emulation,
        console_log_dir: context.args.console_log_dir.display().to_string(),
    }))
}

/// A volume that is bound to another host is not in the store: it may lie in a shared pool.
async fn find(context: &Context, vm: &VirtualMachine, name: &str) -> Result<Option<StorageVolume>, Error> {
    let here = ObjectRef::new(name).within(&vm.namespace().unwrap_or_default());
    if let Some(volume) = context.stores.volumes.get(&here) {
        return Ok(Some((*volume).clone()));
    }
    let api: Api<StorageVolume> = beside(&context.client, vm);
    api.get_opt(name).await.map_err(Error::api("read a volume"))
}

fn is_in(pool: &StoragePool, volume: &StorageVolume, path: &str) -> bool {
    let (path, dir) = (Path::new(path), Path::new(&pool.spec.dir.path));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    path.parent() == Some(dir)
        && names::is_volume_file(&file, &volume.namespace().unwrap_or_default(), &volume.name_any())
}

/// The file that a disk of the volume is on. A domain that has the disk keeps it on the file that it has, whatever this says.
fn goes_on(vm: &VirtualMachine, path: String, format: Format) -> Result<(String, Format), String> {
    let ends = chains::ends(Path::new(&path)).map_err(|error| format!("looking for its snapshots: {error}"))?;
    let has = vm.status.iter().flat_map(|status| &status.disks).any(|disk| names::is_same_volume(&disk.path, &path));
    match ends.as_slice() {
        [] => Ok((path, format)),
        [end] => Ok((end.clone(), Format::Qcow2)),
        _ if has => Ok((path, format)),
        _ => Err(format!(
            "its snapshots branch, and nothing says which is meant: {}; remove all but one",
            ends.join(", ")
        )),
    }
}

fn resolved(context: &Context, vm: &VirtualMachine, volume: &StorageVolume) -> Volume {
    let pool = context.stores.pools.get(&ObjectRef::new(&volume.spec.storage_pool));
    let shared = pool.as_ref().is_some_and(|pool| pool.spec.shared);
    let status = volume.status.clone().unwrap_or_default();
    if volume.metadata.deletion_timestamp.is_some() {
        return Volume::NotReady("it is being deleted".into());
    }
    match status.host.as_deref() {
        None => return Volume::NotReady("it is on no host yet".into()),
        Some(host) if host != context.host && !shared => return Volume::NotReady(format!("it is on host {host}")),
        Some(_) => {}
    }
    match (status.phase, status.path, status.format) {
        // Another host's agent may have written the path: only a file of this very name in the pool is believed.
        (Some(VolumePhase::Ready | VolumePhase::Resizing), Some(path), _)
            if !pool.as_ref().is_some_and(|pool| is_in(pool, volume, &path)) =>
        {
            Volume::NotReady(format!("its path {path} is not in its pool"))
        }
        (Some(VolumePhase::Ready | VolumePhase::Resizing), Some(path), Some(format)) => {
            let (path, format) = match goes_on(vm, path, format) {
                Ok(file) => file,
                Err(why) => return Volume::NotReady(why),
            };
            let me = Claim { name: vm.name_any(), uid: vm.uid().unwrap_or_default() };
            let differs = template::differs(vm, &volume.name_any(), &volume.spec);
            Volume::Ready { path, format, shared, claimed: status.claimed_by == Some(me), differs }
        }
        // Why stands in its own conditions, which change more often than this.
        (Some(VolumePhase::Failed), ..) => match conditions::find(&status.conditions, Type::Stalled) {
            Some(stalled) if stalled.status == "True" => {
                Volume::Stalled(format!("it cannot be made as it is asked for ({})", stalled.reason))
            }
            Some(_) | None => Volume::NotReady("it could not be made, and is tried again".into()),
        },
        // One word for as long as it takes: how far it is, is told by the volume itself.
        (None | Some(VolumePhase::Pending | VolumePhase::Importing), ..) => Volume::NotReady("it is being made".into()),
        (Some(phase), ..) => Volume::NotReady(format!("it is {phase:?}")),
    }
}

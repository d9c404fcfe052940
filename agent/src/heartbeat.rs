//! This host's Lease: the controller takes a host for lost when it stops changing.

use crate::context::{Context, MANAGER};
use crds::{HOSTS_NAMESPACE, Host};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams};
use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);
const DURATION_SECONDS: i32 = 40;

/// Renews the Lease for ever, while there is a Host of this name. One that is being deleted loses its Lease: it is not made again, whatever
/// our copy of the Host still says. A renewal therefore names the Lease that it renews: the API server does not make one that has a uid.
pub async fn beat(context: Arc<Context>) {
    let leases = Api::<Lease>::namespaced(context.client.clone(), HOSTS_NAMESPACE);
    let mut uid = None;
    loop {
        if context.host_object().is_some_and(stays) {
            match renew(&context, &leases, uid.take()).await {
                Ok(None) => {}
                Ok(Some(lease)) => {
                    context.history.wrote(lease.metadata.resource_version.as_deref());
                    uid = lease.metadata.uid;
                }
                Err(error) => tracing::warn!("renewing this host's Lease: {error}"),
            }
            tokio::time::sleep(EVERY).await;
        } else {
            uid = None;
            tokio::time::sleep(EVERY / 10).await;
        }
    }
}

/// Renews the Lease of that uid, or finds the one to renew, or makes one for a Host that is there.
async fn renew(context: &Context, leases: &Api<Lease>, uid: Option<String>) -> kube::Result<Option<Lease>> {
    let uid = match uid {
        Some(uid) => Some(uid),
        None => leases.get_metadata_opt(&context.host).await?.and_then(|lease| lease.metadata.uid),
    };
    if uid.is_none() {
        let host = Api::<Host>::all(context.client.clone()).get_opt(&context.host).await?;
        if !host.is_some_and(stays) {
            return Ok(None);
        }
    }
    let mut lease = Lease::default();
    lease.metadata.name = Some(context.host.clone());
    lease.metadata.uid = uid;
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(context.host.clone()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(jiff::Timestamp::now())),
        ..LeaseSpec::default()
    });
    let parameters = PatchParams::apply(MANAGER).force();
    leases.patch(&context.host, &parameters, &Patch::Apply(&lease)).await.map(Some)
}

fn stays(host: impl Borrow<Host>) -> bool {
    host.borrow().metadata.deletion_timestamp.is_none()
}

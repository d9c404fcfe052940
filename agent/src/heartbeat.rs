//! This host's Lease: the controller takes a host for lost when it stops changing.

use crate::context::{Context, MANAGER};
use crds::HOSTS_NAMESPACE;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams};
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);
const DURATION_SECONDS: i32 = 40;

/// Renews the Lease for ever, while there is a Host of this name. One that is being deleted loses its Lease: it is not made again.
pub async fn beat(context: Arc<Context>) {
    let leases = Api::<Lease>::namespaced(context.client.clone(), HOSTS_NAMESPACE);
    loop {
        if context.host_object().is_some_and(|host| host.metadata.deletion_timestamp.is_none()) {
            let mut lease = Lease::default();
            lease.metadata.name = Some(context.host.clone());
            lease.spec = Some(LeaseSpec {
                holder_identity: Some(context.host.clone()),
                lease_duration_seconds: Some(DURATION_SECONDS),
                renew_time: Some(MicroTime(jiff::Timestamp::now())),
                ..LeaseSpec::default()
            });
            let parameters = PatchParams::apply(MANAGER).force();
            match leases.patch(&context.host, &parameters, &Patch::Apply(&lease)).await {
                Ok(lease) => context.history.wrote(lease.metadata.resource_version.as_deref()),
                Err(error) => tracing::warn!("renewing this host's Lease: {error}"),
            }
            tokio::time::sleep(EVERY).await;
        } else {
            tokio::time::sleep(EVERY / 10).await;
        }
    }
}

//! One controller leads: it holds a Lease and renews it. One that cannot renew stops at once, before another may begin.

use crate::args::Args;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use shell::history::History;
use std::time::{Duration, Instant};

/// Name of the election's Lease.
pub const NAME: &str = "virtfleet-controller";

/// The election as this process sees it.
pub struct Election {
    leases: Api<Lease>,
    me: String,
    duration: Duration,
}

impl Election {
    /// Takes no part yet.
    pub fn new(client: &Client, args: &Args) -> Election {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Election {
            leases: Api::namespaced(client.clone(), &args.namespace),
            me: format!("{}-{}-{:x}", host.trim(), std::process::id(), (shell::retry::random() * 1e9) as u32),
            duration: Duration::from_secs(args.lease_duration_seconds.into()),
        }
    }

    /// Waits until nobody else leads, and takes the Lease.
    pub async fn win(&self) -> Lease {
        // Whose Lease was seen last, and since when it has not changed, by this machine's own clock.
        let mut seen: Option<(LeaseSpec, Instant)> = None;
        loop {
            match self.leases.get_opt(NAME).await {
                Ok(None) => match self.leases.create(&PostParams::default(), &self.claim(None)).await {
                    Ok(lease) => return self.won(lease),
                    Err(error) => tracing::debug!("the Lease was not made: {error}"),
                },
                Ok(Some(lease)) => {
                    let spec = lease.spec.clone().unwrap_or_default();
                    let unchanged = seen.as_ref().filter(|(old, _)| *old == spec).map(|(_, since)| *since);
                    let since = unchanged.unwrap_or_else(Instant::now);
                    let theirs = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).unsigned_abs().into());
                    let free = spec.holder_identity.as_deref().unwrap_or_default().is_empty();
                    if free || since.elapsed() > theirs {
                        match self.leases.replace(NAME, &PostParams::default(), &self.claim(Some(&lease))).await {
                            Ok(lease) => return self.won(lease),
                            Err(error) => tracing::debug!("the Lease was not taken: {error}"),
                        }
                    }
                    seen = Some((spec, since));
                }
                Err(error) => tracing::warn!("reading the election's Lease: {error}"),
            }
            tokio::time::sleep(self.duration / 15).await;
        }
    }

    /// Renews the Lease; returns when it is lost.
    pub async fn keep(&self, mut lease: Lease, history: &History) {
        let mut renewed = Instant::now();
        let (usual, soon) = (self.duration / 3, self.duration / 15);
        let mut pause = usual;
        loop {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let parameters = PostParams::default();
            let claim = self.claim(Some(&lease));
            let renewal = self.leases.replace(NAME, &parameters, &claim);
            // Others count from what they see: this process must give up earlier than they may take over.
            let left = (self.duration * 2 / 3).saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, renewal).await {
                Ok(Ok(new)) => {
                    history.wrote(new.metadata.resource_version.as_deref());
                    (lease, renewed, pause) = (new, begun, usual);
                }
                Ok(Err(error)) if shell::error::is_code(&error, 409) => return,
                Ok(Err(error)) => {
                    tracing::warn!("the election's Lease was not renewed: {error}");
                    pause = soon;
                }
                Err(_) => return,
            }
        }
    }

    fn won(&self, lease: Lease) -> Lease {
        tracing::info!("leading as {}", self.me);
        lease
    }

    fn claim(&self, old: Option<&Lease>) -> Lease {
        let mut lease = old.cloned().unwrap_or_default();
        let before = lease.spec.unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.me);
        let now = Some(MicroTime(Timestamp::now()));
        lease.metadata.name = Some(NAME.into());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!mine)),
            ..LeaseSpec::default()
        });
        lease
    }
}

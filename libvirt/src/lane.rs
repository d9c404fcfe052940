//! Connections, and calls on them with deadlines.

use crate::Settings;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use virt::connect::Connect;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Lists and events.
    List,
    /// Looks at one domain, which wait as long as its QEMU hangs.
    Looks,
    /// Everything that changes something.
    Steps,
    /// Guest agents, which answer when they like.
    Agents,
    /// What takes as long as there is data.
    Jobs,
}

/// Calls at once on a connection: one less than libvirtd serves (`max_client_requests` = 5).
const CALLS: usize = 4;
/// Connections of each lane. With four for looks and steps, sixteen hung guests are needed to delay another.
const CONNECTIONS: [(Lane, usize); 5] =
    [(Lane::List, 1), (Lane::Looks, 4), (Lane::Steps, 4), (Lane::Agents, 1), (Lane::Jobs, 2)];

/// All connections to one libvirt.
pub(crate) struct Lanes {
    settings: Settings,
    links: Vec<(Lane, Slot)>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
}

/// A place for one connection.
struct Slot {
    connect: RwLock<Option<Connect>>,
    permits: Arc<Semaphore>,
}

impl Lanes {
    pub(crate) fn new(settings: &Settings) -> Lanes {
        let slot = || Slot { connect: RwLock::new(None), permits: Arc::new(Semaphore::new(CALLS)) };
        let links = CONNECTIONS.iter().flat_map(|(lane, count)| (0..*count).map(move |_| (*lane, slot()))).collect();
        Lanes { settings: settings.clone(), links, calls: Mutex::default() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lane of each place, in order.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = Lane> + '_ {
        self.links.iter().map(|(lane, _)| *lane)
    }

    /// Puts connections into all places, or takes them out.
    pub(crate) fn set(&self, connections: Option<Vec<Connect>>) {
        let mut connections = connections.map(Vec::into_iter);
        for (_, slot) in &self.links {
            let new = connections.as_mut().and_then(Iterator::next);
            *slot.connect.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }

    /// Runs a blocking call on the least busy connection of the lane.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        act: &'static str,
        deadline: Duration,
        call: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(act).or_default() += 1;
        let work = async {
            let (connect, permit) = self.take(lane, act).await?;
            // The permit goes into the thread: a call whose deadline passed keeps its place until libvirt answers.
            let done = tokio::task::spawn_blocking(move || {
                let result = call(&connect);
                drop(permit);
                result
            });
            match done.await {
                Ok(result) => result.map_err(|error| Error::of(act, &error)),
                Err(_) => Err(Error::new(act, Kind::Other, "the call panicked")),
            }
        };
        let late =
            || Error::new(act, Kind::TimedOut, format!("libvirt did not answer within {} s", deadline.as_secs()));
        tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn take(&self, lane: Lane, act: &'static str) -> Result<(Connect, OwnedSemaphorePermit)> {
        let slots = self.links.iter().filter(|(of, _)| *of == lane).map(|(_, slot)| slot);
        let gone = || Error::new(act, Kind::Gone, "libvirt is not there");
        let slot = slots.max_by_key(|slot| slot.permits.available_permits()).ok_or_else(gone)?;
        let permit = slot.permits.clone().acquire_owned().await.map_err(|_| gone())?;
        let connect = slot.connect.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(gone)?;
        Ok((connect, permit))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Instant;

    /// The sleep stands for a guest or a libvirtd that hangs, which the test driver cannot do.
    #[tokio::test]
    async fn eight_hung_calls_do_not_delay_a_ninth_and_end_at_their_deadline() {
        crate::ffi::start_event_loop().unwrap();
        let settings = Settings::new("test:///default");
        let lanes = Arc::new(Lanes::new(&settings));
        let open = |_| Connect::open(Some(&settings.uri)).unwrap();
        lanes.set(Some(lanes.lanes().map(open).collect()));
        let hung = (0..8).map(|_| {
            let lanes = lanes.clone();
            tokio::spawn(async move {
                let sleep = |_: &Connect| {
                    std::thread::sleep(Duration::from_secs(3));
                    Ok(())
                };
                lanes.run(Lane::Steps, "hang", Duration::from_secs(1), sleep).await
            })
        });
        let hung: Vec<_> = hung.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        for lane in [Lane::Steps, Lane::List, Lane::Looks, Lane::Agents] {
            lanes.run(lane, "ninth", Duration::from_secs(1), |connect| connect.hostname()).await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        for call in hung {
            assert_eq!(call.await.unwrap().unwrap_err().kind, Kind::TimedOut);
        }
        assert_eq!(lanes.calls()["hang"], 8);
    }

    #[tokio::test]
    async fn a_call_without_connection_says_so_at_once() {
        let lanes = Lanes::new(&Settings::new("test:///default"));
        let gone = lanes.run(Lane::Steps, "call", Duration::from_secs(1), |_| Ok(())).await.unwrap_err();
        assert_eq!(gone.kind, Kind::Gone);
    }
}

//! The only crate that links libvirt: its calls as futures with deadlines, its events as a stream. It decides nothing: names and XML
//! go in, facts come out. Does I/O.
//!
//! libvirtd serves five requests of a client connection at once, so there are several connections ([`lane`]): one for lists and
//! events, four for looks at single domains, four for steps, one for guest agents, two for work that takes long. A call that hangs keeps its
//! place on one of them until libvirt answers; the others go on.

mod domains;
pub mod error;
pub mod event;
mod ffi;
mod guest;
mod host;
mod keeper;
pub mod lane;
mod pools;
mod snapshots;

pub use domains::{DomainDetail, DomainState, DomainSummary, OffReason, ShutdownMode};
pub use error::{Error, Kind, Result};
pub use event::{DomainEvent, Event};
pub use host::{Node, Versions};
pub use pools::{PoolDetail, PoolSummary};
pub use snapshots::{SnapshotDetail, Take};

use lane::{Lane, Lanes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Where libvirt is and how long its calls may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// libvirt's address, such as `qemu:///system`.
    pub uri: String,
    /// For calls that should return at once.
    pub call: Duration,
    /// For starting and destroying a domain, which take QEMU's time.
    pub start: Duration,
}

impl Settings {
    /// The usual deadlines: 15 s, and 60 s for starts.
    pub fn new(uri: impl Into<String>) -> Settings {
        Settings { uri: uri.into(), call: Duration::from_secs(15), start: Duration::from_secs(60) }
    }
}

/// Whether libvirt is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// All connections are open.
    Up,
    /// They are being opened; why the last attempt failed.
    Down(String),
}

/// A handle to one host's libvirt; cheap to clone.
#[derive(Clone)]
pub struct Libvirt {
    lanes: Arc<Lanes>,
    link: watch::Receiver<Link>,
}

impl Libvirt {
    /// Opens the connections in the background and keeps them open. Returns at once: a host whose libvirt is not there gives
    /// [`Kind::Gone`] from each call until it is. The stream begins with [`Event::Connected`] at each (re)connection.
    ///
    /// # Errors
    /// When libvirt's event loop cannot be started. Call it within a Tokio runtime.
    pub fn start(settings: Settings) -> Result<(Libvirt, mpsc::UnboundedReceiver<Event>)> {
        ffi::start_event_loop()?;
        let lanes = Arc::new(Lanes::new(&settings));
        let (events, stream) = mpsc::unbounded_channel();
        let (link_sender, link) = watch::channel(Link::Down("not connected yet".into()));
        tokio::spawn(keeper::keep(lanes.clone(), settings.uri, events, link_sender));
        Ok((Libvirt { lanes, link }, stream))
    }

    /// Whether libvirt is there; changes can be waited for.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// How often each call was made.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.lanes.calls()
    }

    async fn list<T: Send + 'static>(
        &self,
        act: &'static str,
        call: impl FnOnce(&virt::connect::Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        self.lanes.run(Lane::List, act, self.lanes.settings().call, call).await
    }

    async fn look<T: Send + 'static>(
        &self,
        act: &'static str,
        call: impl FnOnce(&virt::connect::Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        self.lanes.run(Lane::Looks, act, self.lanes.settings().call, call).await
    }

    async fn step<T: Send + 'static>(
        &self,
        act: &'static str,
        deadline: Duration,
        call: impl FnOnce(&virt::connect::Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T> {
        self.lanes.run(Lane::Steps, act, deadline, call).await
    }
}

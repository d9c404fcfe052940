//! What libvirt tells by itself.

/// News from libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All connections are open: list everything, what happened before is not told.
    Connected,
    /// A connection broke.
    Disconnected(String),
    /// Something about a domain.
    Domain {
        /// Its UUID in its usual form.
        uuid: String,
        /// Its name.
        name: String,
        /// What happened.
        kind: DomainEvent,
    },
    /// Something about a pool of this name.
    Pool(String),
}

/// What happened to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainEvent {
    /// It was defined, or its definition changed.
    Defined,
    /// Its definition was removed.
    Undefined,
    /// It started.
    Started,
    /// It is off.
    Stopped,
    /// It paused, resumed, crashed, is shutting down, or got or lost a device.
    Changed,
    /// Its guest rebooted.
    Rebooted,
    /// Its guest agent came or went.
    Agent {
        /// Whether it is there.
        connected: bool,
    },
}

//! What agent and controller do alike around their decisions: connect, apply a status, tell users, retry, answer probes, stop. Does I/O;
//! decides nothing about any kind.

pub mod client;
pub mod error;
pub mod events;
pub mod health;
pub mod history;
pub mod logs;
pub mod metrics;
pub mod passing;
pub mod queue;
pub mod retry;
pub mod status;
pub mod watch;

pub use error::Error;

/// What resolves when the process is asked to end (SIGTERM, SIGINT). From this call on it no longer just dies of that.
///
/// # Errors
/// When the signals cannot be heard.
pub fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

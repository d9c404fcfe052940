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

/// Resolves when the process is asked to end (SIGTERM, SIGINT).
///
/// # Errors
/// When the signals cannot be heard.
pub async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

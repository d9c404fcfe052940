//! `/livez`, `/readyz` and `/metrics` over HTTP.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What a binary tells about itself.
pub trait Probe: Send + Sync + 'static {
    /// Whether it does its work, or why not.
    ///
    /// # Errors
    /// What is missing, as a sentence.
    fn ready(&self) -> Result<(), String>;
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
}

/// Why probes cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for probes; choose another address with --listen")]
pub struct Error {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Opens the address, then answers in the background. Alive is who answers.
///
/// # Errors
/// When the address cannot be opened.
pub async fn serve(address: SocketAddr, probe: Arc<dyn Probe>) -> Result<(), Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error { address, source })?;
    let ready = probe.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match ready.ready() {
                    Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                    Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
                }
            }),
        )
        .route("/metrics", get(move || async move { probe.metrics() }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("probes are no longer answered: {error}");
        }
    });
    Ok(())
}

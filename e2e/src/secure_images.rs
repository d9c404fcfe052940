//! An HTTPS server of images that demands a credential, for one story: its own authority, port and memory of what it was asked. Does I/O.
//!
//! `/<how>/<file>` is what the bed's plain server gives, to who may have it; `/open/<file>` to everybody; `/leave/<file>` leads to
//! `/open/<file>` of another server.

use crate::images::answer;
use crate::run::Run;
use crate::{Result, pki};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use axum::serve::Listener;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Who signs the certificates of such servers.
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Authority> {
        let (certificate, issuer) = pki::authority("a story's images")?;
        Ok(Authority { certificate, issuer })
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its path.
    pub path: String,
    /// Its header Authorization.
    pub authorization: Option<String>,
    /// Its header Range.
    pub range: Option<String>,
}

/// A server; it ends with this value.
pub struct SecureImages {
    /// `https://…` without a path.
    pub url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

impl Drop for SecureImages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SecureImages {
    /// Serves the run's images at its address, on a free port. `accepted`: what header Authorization may be; `elsewhere`: the other server.
    ///
    /// # Errors
    /// When it cannot begin.
    pub async fn start(run: &Run, authority: &Authority, accepted: &[String], elsewhere: &str) -> Result<SecureImages> {
        let tcp = TcpListener::bind((run.address(), 0)).await?;
        let url = format!("https://{}", tcp.local_addr()?);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([run.address().to_string()])?.signed_by(&key, &authority.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let heard = Arc::new(Mutex::default());
        let server = Arc::new(Server {
            images: run.guest.clone(),
            accepted: accepted.to_vec(),
            elsewhere: elsewhere.into(),
            heard: Arc::clone(&heard),
        });
        let router = Router::new().fallback(async move |request: Request| server.serve(&request));
        let listener = Tls { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(SecureImages { url, heard, task })
    }

    /// All requests so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Server {
    images: PathBuf,
    accepted: Vec<String>,
    elsewhere: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Server {
    fn serve(&self, request: &Request) -> Response<Body> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (path, authorization) = (request.uri().path().to_owned(), text(header::AUTHORIZATION));
        let may = authorization.as_ref().is_some_and(|told| self.accepted.contains(told));
        let heard = Heard { path: path.clone(), authorization, range: text(header::RANGE) };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
        match path.trim_start_matches('/').split_once('/') {
            Some(("open", file)) => answer(&self.images, "plain", file, request.headers()),
            Some(_) if !may => plain(StatusCode::UNAUTHORIZED),
            Some(("leave", file)) => {
                let mut response = plain(StatusCode::FOUND);
                let target = format!("{}/open/{file}", self.elsewhere).parse().ok();
                response.headers_mut().extend(target.map(|target| (header::LOCATION, target)));
                response
            }
            Some((how, file)) => answer(&self.images, how, file, request.headers()),
            None => plain(StatusCode::NOT_FOUND),
        }
    }
}

fn plain(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// Connections after their handshake; those that fail it are dropped.
struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.tcp).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

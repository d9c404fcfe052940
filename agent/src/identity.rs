//! Who the agent is to the API server: the account of its host, whose token it asks for and renews. Does I/O.
//!
//! In a pod the pod's account asks, which may do nothing else and gets its own node's only (`charts/virtfleet/templates/agent-token.yaml`).
//! Outside the cluster the host's account asks for its own next token, beginning with the one of the kubeconfig. Either way the token lies
//! in a file that the client reads again each minute.

use crate::args::Args;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crds::HOSTS_NAMESPACE;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use secrecy::ExposeSecret;
use shell::client;
use shell::retry::{Case, pause, random};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tower::util::MapResponseLayer;

/// Seconds that a token of a pod's agent lives: whoever steals one has it no longer.
const IN_POD: i64 = 3600;
/// Seconds that one outside the cluster lives: so long may a host be off and still come back by itself.
const OUTSIDE: i64 = 30 * 24 * 3600;
/// A token is renewed after half of its life, and after a day at the latest.
const OLD: SignedDuration = SignedDuration::from_hours(24);
/// How often is looked whether it is time. By the wall clock: a host may sleep.
const LOOK: Duration = Duration::from_secs(5);
/// The client knows a new token after so long at the latest: what is refused earlier was asked with the old one.
const KNOWN: SignedDuration = SignedDuration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way to the API server.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Nothing to begin with.
    #[error("{0} holds no token and the kubeconfig none; make one with `virtfleet-controller host-kubeconfig`")]
    NoToken(PathBuf),
    /// The file cannot be read or written.
    #[error("cannot keep the token in {path}: {why}; give --token-file a place that the agent may write")]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        why: io::Error,
    },
    /// The API server gave none.
    #[error(transparent)]
    Refused(#[from] shell::Error),
    /// It answered, with nothing.
    #[error("the API server's answer holds no token")]
    Empty,
}

/// A client that is this host's account. In a pod it waits until there is a token, however long that takes, and says so.
///
/// # Errors
/// When there is no usable configuration, or no token to begin with.
pub async fn connect(args: &Args) -> Result<Client, Error> {
    let config = client::config(args.kubeconfig.as_deref()).await?;
    let Some(file) = args.token_file.clone() else { return Ok(client::of(config)?) };
    let refused = Arc::new(AtomicBool::new(false));
    if args.kubeconfig.is_none() {
        let mut source = Source::new(client::of(config.clone())?, args, file.clone(), IN_POD);
        source.renew().await;
        let own = with_token_file(config, &file, &refused)?;
        tokio::spawn(source.keep(refused));
        return Ok(own);
    }
    begin(&config, &file)?;
    let own = with_token_file(config, &file, &refused)?;
    let source = Source::new(own.clone(), args, file, OUTSIDE);
    tokio::spawn(source.keep(refused));
    Ok(own)
}

/// Puts the kubeconfig's token into the file if it is younger than what lies there: an administrator made a new one.
fn begin(config: &Config, file: &Path) -> Result<(), Error> {
    let failed = |why| Error::File { path: file.to_owned(), why };
    let kept = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(failed)?),
    };
    let given = config.auth_info.token.as_ref().map(|token| token.expose_secret().trim());
    match (kept.as_deref(), given) {
        (None, None) => Err(Error::NoToken(file.to_owned())),
        (Some(kept), Some(given)) if issued(given) > issued(kept) => write(file, given).map_err(failed),
        (None, Some(given)) => write(file, given).map_err(failed),
        (Some(_), _) => Ok(()),
    }
}

/// When a token was issued, in seconds since 1970. Its signature is the API server's to check.
fn issued(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&claims).ok()?["iat"].as_i64()
}

/// Whole or not at all, and closed to others from its first instant.
fn write(file: &Path, token: &str) -> io::Result<()> {
    let part = file.with_extension("part");
    let mut to = File::options().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
    to.write_all(token.as_bytes())?;
    to.sync_all()?;
    fs::rename(part, file)
}

/// A client with the file's token, which says when the API server does not take it (401).
fn with_token_file(mut config: Config, file: &Path, refused: &Arc<AtomicBool>) -> Result<Client, Error> {
    config.auth_info.token = None;
    config.auth_info.token_file = Some(file.display().to_string());
    let refused = refused.clone();
    let watch = MapResponseLayer::new(move |response: http::Response<_>| {
        if response.status() == http::StatusCode::UNAUTHORIZED {
            refused.store(true, Ordering::Relaxed);
        }
        response
    });
    Ok(ClientBuilder::try_from(config).map_err(client::Error::Unusable)?.with_layer(&watch).build())
}

/// Where tokens come from and go to.
struct Source {
    accounts: Api<ServiceAccount>,
    host: String,
    file: PathBuf,
    lifetime: i64,
    renewed: Timestamp,
    due: Timestamp,
}

impl Source {
    fn new(asker: Client, args: &Args, file: PathBuf, lifetime: i64) -> Source {
        let accounts = Api::namespaced(asker, HOSTS_NAMESPACE);
        let never = Timestamp::UNIX_EPOCH;
        Source { accounts, host: args.host.clone(), file, lifetime, renewed: never, due: never }
    }

    /// Renews in time, for ever; also when the token is not taken any more, since the account may have been made anew.
    async fn keep(mut self, refused: Arc<AtomicBool>) {
        loop {
            let now = Timestamp::now();
            let refused = refused.swap(false, Ordering::Relaxed) && now.duration_since(self.renewed) > KNOWN;
            if now >= self.due || refused {
                self.renew().await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tries until there is a new token.
    async fn renew(&mut self) {
        let mut failures = 0;
        while let Err(error) = self.ask().await {
            failures += 1;
            tracing::warn!("{error}");
            tokio::time::sleep(pause(Case::Transient, failures, Timestamp::now(), random()).min(LONGEST_PAUSE)).await;
        }
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let spec = TokenRequestSpec { expiration_seconds: Some(self.lifetime), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let asked = self.accounts.create_token_request(&self.host, &PostParams::default(), &request).await;
        let answer = asked.map_err(shell::Error::api("ask for the token of this host's account"))?;
        let answer = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (answer.token, answer.expiration_timestamp) else {
            return Err(Error::Empty);
        };
        write(&self.file, &token).map_err(|why| Error::File { path: self.file.clone(), why })?;
        self.renewed = Timestamp::now();
        // The API server may have given it a shorter life than was asked for.
        let half = expires.0.duration_since(self.renewed) / 2;
        self.due = self.renewed + half.min(OLD);
        tracing::debug!("the next token of this host's account is due at {}", self.due);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn token(iat: i64) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{iat},"exp":{}}}"#, iat + 10)))
    }

    fn kubeconfig(token: Option<String>) -> Config {
        let mut config = Config::new("https://localhost".parse().unwrap());
        config.auth_info.token = token.map(Into::into);
        config
    }

    #[test]
    fn the_younger_token_is_begun_with() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let after = |given: Option<i64>| {
            begin(&kubeconfig(given.map(token)), &file).unwrap();
            issued(&fs::read_to_string(&file).unwrap())
        };
        assert!(matches!(begin(&kubeconfig(None), &file), Err(Error::NoToken(_))));
        assert_eq!(after(Some(100)), Some(100));
        assert_eq!(after(None), Some(100));
        assert_eq!(after(Some(90)), Some(100), "the kubeconfig's first token after the agent renewed it");
        assert_eq!(after(Some(200)), Some(200), "the administrator made a new one");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_token_is_older_than_any() {
        assert_eq!(issued("opaque"), None);
        assert!(issued(&token(1)) > issued("a.b.c"));
    }
}

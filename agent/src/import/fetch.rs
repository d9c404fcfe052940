//! Asks an HTTP server for an image: redirections, who is told the credential, whom TLS trusts, and which addresses may be reached.

use super::{Failure, STALL};
use ipnet::IpNet;
use plan::storage_volume::secret::{Credential, UNAUTHORIZED};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use std::net::{IpAddr, SocketAddr};

const REDIRECTS: usize = 5;
const TLS: &str = "TlsFailed";
const BETTER_BUNDLE: &str = "make a volume with its certificate in spec.source.http.caBundle";

/// What is asked for, and how.
pub struct Request<'a> {
    /// Address of the image.
    pub url: &'a str,
    /// Sent to every hop.
    pub headers: HeaderMap,
    /// Sent to the server of `url` alone.
    pub credential: Option<&'a Credential>,
    /// PEM certificates that are trusted besides the host's.
    pub ca_bundle: Option<&'a str>,
    /// Networks that are allowed though they are private.
    pub allowed: &'a [IpNet],
}

/// Follows redirects itself: each hop's address is looked at before it is connected to, and the connection goes to that very address. What
/// one server is told goes to no other: once the way has left scheme, host and port of the first, nothing of it is sent.
pub async fn get(request: Request<'_>) -> Result<Response, Failure> {
    let bad = |url: &str| Failure::new("ImportFailed", format!("{url} is no address of an HTTP server"));
    let mut url = Url::parse(request.url).map_err(|_| bad(request.url))?;
    let (origin, mut credential) = (url.origin(), request.credential);
    let trusted = certificates(request.ca_bundle)?;
    for _ in 0..=REDIRECTS {
        if !["http", "https"].contains(&url.scheme()) {
            return Err(bad(url.as_str()));
        }
        let host = url.host_str().ok_or_else(|| bad(url.as_str()))?.to_owned();
        let addresses = resolve(&url, &host, request.allowed).await?;
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(STALL)
            .resolve_to_addrs(&host, &addresses)
            .tls_certs_merge(trusted.clone())
            .build()
            .map_err(|error| unusable(&error))?;
        let asked = client.get(url.clone()).headers(request.headers.clone());
        let asked = match credential {
            None => asked,
            Some(Credential::Basic { username, password }) => asked.basic_auth(username, Some(password)),
            Some(Credential::Bearer(token)) => asked.bearer_auth(token),
        };
        let response = match tokio::time::timeout(STALL, asked.send()).await {
            Err(_) => {
                return Err(Failure::new("ImportStalled", format!("{host} did not answer for {} s", STALL.as_secs())));
            }
            Ok(Err(error)) => return Err(unreached(&host, &error)),
            Ok(Ok(response)) => response,
        };
        if response.status().is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            url = target.and_then(|target| url.join(target).ok()).ok_or_else(|| bad("the redirection"))?;
            credential = credential.filter(|_| url.origin() == origin);
            continue;
        }
        let told = |why: &str| format!("{host} answers {} for {}{why}", response.status(), url.path());
        return match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = match (credential, request.credential) {
                    (Some(_), _) => {
                        "; correct the Secret that spec.source.http.secret names, it is looked at every 30 s"
                    }
                    (None, Some(_)) => {
                        "; a redirection led there, and what the Secret holds is sent to the server of the url alone"
                    }
                    (None, None) => {
                        "; where it demands a password or token, make a volume with spec.source.http.secret"
                    }
                };
                Err(Failure::new(UNAUTHORIZED, told(why)))
            }
            _ => Err(Failure::new("ImportFailed", told(""))),
        };
    }
    Err(Failure::new("ImportFailed", format!("more than {REDIRECTS} redirections")))
}

/// Reads the manifest's certificates.
fn certificates(bundle: Option<&str>) -> Result<Vec<Certificate>, Failure> {
    let Some(bundle) = bundle else { return Ok(Vec::new()) };
    match Certificate::from_pem_bundle(bundle.as_bytes()) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(Failure::new(TLS, format!("no certificate can be read there; {BETTER_BUNDLE}"))),
    }
}

/// Why there is no client: of what it is made of only the certificates are a user's.
fn unusable(error: &reqwest::Error) -> Failure {
    Failure::new(TLS, format!("{}; {BETTER_BUNDLE}", root(error)))
}

/// Why a server was not reached: a certificate that is not trusted is something to act on.
fn unreached(host: &str, error: &reqwest::Error) -> Failure {
    match tls(error) {
        Some(tls) => Failure::new(TLS, format!("{host}: {tls}; if its authority is one of your own, {BETTER_BUNDLE}")),
        None => Failure::new("ImportFailed", format!("{host}: {}", root(error))),
    }
}

/// The TLS error below, if it is one. An I/O error hides what it holds from the list of causes.
fn tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let within = |error: &'a (dyn std::error::Error + 'static)| {
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.downcast_ref().or_else(|| tls(held?))
    };
    std::iter::successors(Some(error), |error| error.source()).find_map(within)
}

async fn resolve(url: &Url, host: &str, allowed: &[IpNet]) -> Result<Vec<SocketAddr>, Failure> {
    let port = url.port_or_known_default().unwrap_or(80);
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let found: Vec<SocketAddr> = match literal {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| Failure::new("ImportFailed", format!("{host}: {error}")))?
            .collect(),
    };
    match found.iter().find(|address| !may(address.ip(), allowed)) {
        Some(address) => Err(Failure::new(
            "AddressNotAllowed",
            format!(
                "{host} is {}, a private or local address; the host's administrator can allow it (--import-allow)",
                address.ip()
            ),
        )),
        None => Ok(found),
    }
}

/// Whether an image may come from there: private, local and special addresses only when they are allowed.
fn may(ip: IpAddr, allowed: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    if allowed.iter().any(|network| network.contains(&ip)) {
        return true;
    }
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || shared
                || a == 0
                || a >= 240
                || (a == 198 && (b == 18 || b == 19)))
        }
        IpAddr::V6(v6) => {
            // Only what is global; 64:ff9b::/96 and 2002::/16 carry IPv4 addresses of any kind.
            let first = v6.segments()[0];
            first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && v6.segments()[1] < 0x0200)
        }
    }
}

/// The innermost cause: the layers above say only that it failed.
pub fn root(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A server whose path says where it leads to: `/<port>/<port>/…`; at the end it has the image. Gives its port.
    async fn leads(heard: tokio::sync::mpsc::UnboundedSender<bool>) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                heard.send(request.contains("authorization: Bearer word")).unwrap();
                let path = request.split(' ').nth(1).unwrap().trim_matches('/');
                let answer = match path.split_once('/').unwrap_or((path, "")) {
                    ("", _) => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    (next, rest) => format!(
                        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{next}/{rest}\r\nContent-Length: 0\r\n\r\n"
                    ),
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn a_credential_is_told_to_the_first_server_alone_and_not_after_the_way_has_left_it() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (a, b) = (leads(sender.clone()).await, leads(sender).await);
        for (way, told) in [
            (format!("{a}/"), vec![true]),
            (format!("{a}/{a}/"), vec![true, true]),
            (format!("{a}/{b}/"), vec![true, false]),
            (format!("{a}/{b}/{a}/"), vec![true, false, false]),
        ] {
            let credential = Credential::Bearer("word".into());
            let request = Request {
                url: &format!("http://127.0.0.1:{way}"),
                headers: HeaderMap::new(),
                credential: Some(&credential),
                ca_bundle: None,
                allowed: &["127.0.0.1/32".parse().unwrap()],
            };
            assert_eq!(get(request).await.unwrap().status(), StatusCode::OK);
            let heard: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
            assert_eq!(heard, told, "{way}");
        }
    }

    #[test]
    fn what_holds_no_certificate_is_told_with_its_field() {
        let empty = "-----BEGIN CERTIFICATE-----\n";
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        for bundle in [empty, broken] {
            let failure = certificates(Some(bundle)).unwrap_err();
            assert!(failure.reason == TLS && failure.message.contains("caBundle"), "{failure:?}");
        }
        assert!(certificates(None).unwrap().is_empty());
    }

    #[test]
    fn only_public_addresses_are_allowed_unless_the_administrator_says_otherwise() {
        for ip in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
        ] {
            assert!(!may(ip.parse().unwrap(), &[]), "{ip}");
        }
        for ip in ["1.1.1.1", "100.128.0.1", "2606:4700::1111"] {
            assert!(may(ip.parse().unwrap(), &[]), "{ip}");
        }
        let allowed = ["10.213.0.1/32".parse().unwrap()];
        assert!(may("10.213.0.1".parse().unwrap(), &allowed) && !may("10.213.0.2".parse().unwrap(), &allowed));
    }
}

//! Asks an HTTP server for an image: redirections, and which addresses may be reached.

use super::{Failure, STALL};
use ipnet::IpNet;
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use std::net::{IpAddr, SocketAddr};

const REDIRECTS: usize = 5;

/// Follows redirects itself: each hop's address is looked at before it is connected to, and the connection goes to that very address.
pub async fn get(url: &str, headers: HeaderMap, allowed: &[IpNet]) -> Result<Response, Failure> {
    let bad = |url: &str| Failure::new("ImportFailed", format!("{url} is no address of an HTTP server"));
    let mut url = Url::parse(url).map_err(|_| bad(url))?;
    for _ in 0..=REDIRECTS {
        if !["http", "https"].contains(&url.scheme()) {
            return Err(bad(url.as_str()));
        }
        let host = url.host_str().ok_or_else(|| bad(url.as_str()))?.to_owned();
        let addresses = resolve(&url, &host, allowed).await?;
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(STALL)
            .resolve_to_addrs(&host, &addresses)
            .build()
            .map_err(|error| Failure::new("ImportFailed", root(&error)))?;
        let answer = tokio::time::timeout(STALL, client.get(url.clone()).headers(headers.clone()).send()).await;
        let response = match answer {
            Err(_) => {
                return Err(Failure::new("ImportStalled", format!("{host} did not answer for {} s", STALL.as_secs())));
            }
            Ok(Err(error)) => return Err(Failure::new("ImportFailed", format!("{host}: {}", root(&error)))),
            Ok(Ok(response)) => response,
        };
        if response.status().is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            url = target.and_then(|target| url.join(target).ok()).ok_or_else(|| bad("the redirection"))?;
            continue;
        }
        return match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => Err(Failure::new("ImportFailed", format!("{host} answers {status} for {}", url.path()))),
        };
    }
    Err(Failure::new("ImportFailed", format!("more than {REDIRECTS} redirections")))
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

//! What guests tell through QEMU's guest agent: shown to users, never used to decide anything.

use crate::context::{Context, Shared};
use plan::virtual_machine::status::Guest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A guest that was asked lately is not asked again.
const FRESH: Duration = Duration::from_secs(10);
/// Texts and lists of a guest in a status at most.
const LONGEST: usize = 253;
const MOST: usize = 16;

/// The last answers, by the domain's UUID.
#[derive(Default)]
pub struct Guests(Shared<BTreeMap<String, (Instant, Guest)>>);

impl Guests {
    /// Forgets what the guest told: it was another run.
    pub fn forget(&self, uuid: &str) {
        self.0.lock().remove(uuid);
    }

    /// What the guest tells; asks it unless that was just done. A guest that does not answer tells nothing.
    pub async fn ask(&self, context: &Context, uuid: &str) -> Guest {
        let known = self.0.lock().get(uuid).cloned();
        if let Some((at, guest)) = &known
            && at.elapsed() < FRESH
        {
            return guest.clone();
        }
        let say = async |command| {
            let answer = context.libvirt.agent_command(uuid, command).await.ok()?;
            serde_json::from_str::<Value>(&answer).ok()?.get("return").cloned()
        };
        let Some(name) = say(r#"{"execute":"guest-get-host-name"}"#).await else {
            return known.map(|(_, guest)| guest).unwrap_or_default();
        };
        let system = say(r#"{"execute":"guest-get-osinfo"}"#).await.unwrap_or_default();
        let interfaces = say(r#"{"execute":"guest-network-get-interfaces"}"#).await.unwrap_or_default();
        let guest = Guest {
            hostname: text(&name["host-name"]),
            os: text(&system["pretty-name"]).or_else(|| text(&system["name"])),
            addresses: addresses(&interfaces),
        };
        self.0.lock().insert(uuid.to_owned(), (Instant::now(), guest.clone()));
        guest
    }
}

fn text(value: &Value) -> Option<String> {
    let text: String = value.as_str()?.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    (!text.is_empty()).then_some(text)
}

/// Addresses by hardware address, without the link-local ones.
fn addresses(interfaces: &Value) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for interface in interfaces.as_array().into_iter().flatten().take(MOST) {
        let Some(mac) = text(&interface["hardware-address"]) else { continue };
        let addresses = interface["ip-addresses"].as_array().into_iter().flatten();
        let parsed = addresses.filter_map(|a| a["ip-address"].as_str()?.parse::<std::net::IpAddr>().ok());
        let local = |ip: &std::net::IpAddr| match ip {
            std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            std::net::IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        let mut list: Vec<_> = parsed.filter(|ip| !local(ip)).take(MOST).collect();
        list.sort();
        if !list.is_empty() {
            found.insert(mac.to_lowercase(), list.iter().map(ToString::to_string).collect());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_guests_words_are_cut_and_cleaned() {
        let interfaces = json!([
            {"hardware-address": "52:54:00:AA:00:01", "ip-addresses": [
                {"ip-address": "fe80::1"}, {"ip-address": "10.0.2.15"}, {"ip-address": "not an address"}]},
            {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1"}]},
            {"hardware-address": "52:54:00:aa:00:02", "ip-addresses": 7},
        ]);
        assert_eq!(addresses(&interfaces), [("52:54:00:aa:00:01".to_owned(), vec!["10.0.2.15".to_owned()])].into());
        assert_eq!(text(&json!("a\u{1b}[31mb")), Some("a[31mb".into()));
        assert_eq!(text(&json!("x".repeat(999))).map(|text| text.len()), Some(LONGEST));
    }
}

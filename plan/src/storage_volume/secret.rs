//! Who needs a copy of a Secret for an import, what is in it, and when it goes. Pure; nothing here prints what a Secret holds.
//!
//! An agent reads no Secret of a user: the controller copies what an import needs into the namespace of the volume's host.

use super::status::OF_THE_IMAGE;
use crds::Condition;
use crds::conditions::{Type, find};
use crds::storage_volume::{StorageVolume, StorageVolumeStatus};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeMap;
use std::fmt;

/// What a Secret holds.
pub type Data = BTreeMap<String, ByteString>;

const TOKEN: &str = "token";
const USERNAME: &str = "username";
const PASSWORD: &str = "password";
/// Others hold what was made for other ends, such as a ServiceAccount's token: who may only make volumes must not get that sent to a server.
const TYPES: [&str; 2] = ["Opaque", "kubernetes.io/basic-auth"];

/// Ready's reason while the image's server refuses what it was told.
pub const UNAUTHORIZED: &str = "ImportUnauthorized";
/// Ready's reason while there is no copy.
pub const MISSING: &str = "SecretMissing";

/// What a server is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// By the Basic scheme.
    Basic {
        /// Without a colon.
        username: String,
        /// Anything.
        password: String,
    },
    /// By the Bearer scheme: printable ASCII.
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Credential(not shown)")
    }
}

/// Reads what a server is told. A token goes before a name and password; a line end behind them, as files have it, is no part of them.
pub fn credential(data: &Data) -> Option<Credential> {
    let text = |key: &str| Some(std::str::from_utf8(&data.get(key)?.0).ok()?.trim_end_matches(['\r', '\n']).to_owned());
    if data.contains_key(TOKEN) {
        let fits = |token: &String| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
        return text(TOKEN).filter(fits).map(Credential::Bearer);
    }
    let (username, password) = (text(USERNAME)?, text(PASSWORD)?);
    (!username.is_empty() && !username.contains(':')).then_some(Credential::Basic { username, password })
}

/// What is copied of a user's Secret: the keys that are used, when they can be.
pub fn taken(secret: &Secret) -> Option<Data> {
    let kind = secret.type_.as_deref().unwrap_or(TYPES[0]);
    let data = secret.data.as_ref().filter(|_| TYPES.contains(&kind))?;
    let used = if data.contains_key(TOKEN) { &[TOKEN][..] } else { &[USERNAME, PASSWORD] };
    let taken: Data = data.iter().filter(|(key, _)| used.contains(&key.as_str())).map(clone).collect();
    credential(&taken).is_some().then_some(taken)
}

fn clone((key, value): (&String, &ByteString)) -> (String, ByteString) {
    (key.clone(), value.clone())
}

/// Name of the Secret that the volume's manifest names.
pub fn named(volume: &StorageVolume) -> Option<&str> {
    volume.spec.source.as_ref()?.http.secret.as_deref()
}

/// Whether the volume's import is still to use it. `host_stands`: the Host is there and stays.
pub fn is_needed(volume: &StorageVolume, host_stands: bool) -> bool {
    let status = volume.status.as_ref();
    // A file that was made known is whole. One that nothing more happens to asks no server; one whose image is wrong asks again.
    let is_left = |why: &Condition| why.status == "True" && !OF_THE_IMAGE.contains(&why.reason.as_str());
    let stalled = |status: &StorageVolumeStatus| find(&status.conditions, Type::Stalled).is_some_and(is_left);
    let over = status.is_some_and(|status| status.path.is_some() || stalled(status));
    named(volume).is_some() && volume.metadata.deletion_timestamp.is_none() && host_stands && !over
}

/// One effect on a copy.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// It is as it should be.
    Nothing,
    /// Make it.
    Create(Data),
    /// Write what the user's Secret holds now.
    Replace(Data),
    /// Remove it.
    Remove,
}

impl fmt::Debug for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Step::Nothing => "Nothing",
            Step::Create(_) => "Create",
            Step::Replace(_) => "Replace",
            Step::Remove => "Remove",
        })
    }
}

/// What becomes of the copy. `given`: what [`taken`] gives of the user's Secret; `there`: what the copy holds.
pub fn next(needed: bool, given: Option<Data>, there: Option<&Data>) -> Step {
    match (given.filter(|_| needed), there) {
        (None, None) => Step::Nothing,
        (None, Some(_)) => Step::Remove,
        (Some(given), None) => Step::Create(given),
        (Some(given), Some(there)) if given == *there => Step::Nothing,
        (Some(given), Some(_)) => Step::Replace(given),
    }
}

/// Whether the user's Secret is looked at again soon: nobody tells when it comes or is corrected.
pub fn is_awaited(volume: &StorageVolume, needed: bool, given: bool) -> bool {
    let ready = volume.status.as_ref().and_then(|status| find(&status.conditions, Type::Ready));
    needed && (!given || ready.is_some_and(|ready| ready.reason == UNAUTHORIZED))
}

/// Whether a copy for the volume of this UID has no business in the namespace of `host`.
pub fn is_stale<'a>(uid: &str, host: &str, volumes: impl IntoIterator<Item = &'a StorageVolume>) -> bool {
    let bound = |volume: &StorageVolume| volume.status.as_ref().and_then(|status| status.host.clone());
    // The copy is made before the binding.
    let here = |volume: &StorageVolume| bound(volume).is_none_or(|bound| bound == host);
    !volumes.into_iter().any(|v| v.metadata.uid.as_deref() == Some(uid) && is_needed(v, true) && here(v))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    fn secret(kind: Option<&str>, pairs: &[(&str, &str)]) -> Secret {
        Secret { type_: kind.map(str::to_owned), data: Some(data(pairs)), ..Secret::default() }
    }

    fn volume(secret: bool, metadata: Value, status: Value) -> StorageVolume {
        let mut http = json!({"url": "https://images/a", "insecure": true});
        if secret {
            http["secret"] = json!("login");
        }
        let mut object = json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "StorageVolume", "metadata": metadata,
            "spec": {"storagePool": "p", "source": {"http": http}}, "status": status});
        object["metadata"]["uid"] = json!("u");
        serde_json::from_value(object).unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    #[test]
    fn only_the_keys_that_are_used_are_copied_and_only_when_they_can_be() {
        let login = [("username", "u"), ("password", "p")];
        for (kind, held, copied) in [
            (None, &login[..], &login[..]),
            (Some("Opaque"), &[("token", "t"), ("other", "x")], &[("token", "t")]),
            (Some("Opaque"), &[("token", "t"), login[0], login[1]], &[("token", "t")]),
            (Some("kubernetes.io/basic-auth"), &[login[0], login[1], ("other", "x")], &login),
            (Some("Opaque"), &[("username", "u"), ("password", "")], &[("username", "u"), ("password", "")]),
            (Some("kubernetes.io/service-account-token"), &[("token", "t")], &[]),
            (Some("kubernetes.io/tls"), &login, &[]),
            (None, &login[..1], &[]),
            (None, &login[1..], &[]),
            (None, &[], &[]),
            (None, &[("token", "")], &[]),
            (None, &[("token", "two words"), login[0], login[1]], &[]),
            (None, &[("token", "line\nend")], &[]),
            (None, &[("username", "a:b"), login[1]], &[]),
        ] {
            assert!(taken(&secret(kind, held)).unwrap_or_default() == data(copied), "{kind:?} {held:?}");
        }
        assert!(taken(&Secret::default()).is_none());
    }

    #[test]
    fn a_line_end_behind_a_value_is_no_part_of_it_and_nothing_is_ever_printed() {
        let basic = credential(&data(&[("username", "u\n"), ("password", "p \r\n")])).unwrap();
        assert!(basic == Credential::Basic { username: "u".into(), password: "p ".into() });
        assert!(credential(&data(&[("token", "t\n")])).unwrap() == Credential::Bearer("t".into()));
        let odd = Data::from([("token".to_owned(), ByteString(vec![0xff]))]);
        assert!(credential(&odd).is_none());
        for printed in [format!("{basic:?}"), format!("{:?}", Step::Create(data(&[("token", "canary")])))] {
            assert!(!printed.contains("canary") && !printed.contains("username"), "{printed}");
        }
    }

    #[test]
    fn a_copy_is_needed_from_the_binding_until_the_image_is_there() {
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        for (what, volume, host_stands, needed) in [
            ("new", volume(true, json!({}), json!({})), true, true),
            ("importing", volume(true, json!({}), json!({"host": "a", "phase": "Importing"})), true, true),
            ("refused", volume(true, json!({}), condition("Ready", "False", UNAUTHORIZED)), true, true),
            ("host lost", volume(true, json!({}), condition("Ready", "Unknown", "HostLost")), true, true),
            ("host gone", volume(true, json!({}), json!({"host": "a"})), false, false),
            ("without", volume(false, json!({}), json!({"host": "a"})), true, false),
            ("made", volume(true, json!({}), json!({"host": "a", "path": "/p/v"})), true, false),
            (
                "nothing more happens",
                volume(true, json!({}), condition("Stalled", "True", "InvalidSource")),
                true,
                false,
            ),
            ("tried again", volume(true, json!({}), condition("Stalled", "True", "ChecksumMismatch")), true, true),
            ("deleted", volume(true, deleted, json!({"host": "a", "phase": "Importing"})), true, false),
        ] {
            assert_eq!(is_needed(&volume, host_stands), needed, "{what}");
        }
    }

    #[test]
    fn a_copy_follows_the_secret_and_goes_when_nobody_needs_it() {
        let (old, new) = (data(&[("token", "old")]), data(&[("token", "new")]));
        for (needed, given, there, step) in [
            (true, Some(&new), None, Step::Create(new.clone())),
            (true, Some(&new), Some(&new), Step::Nothing),
            (true, Some(&new), Some(&old), Step::Replace(new.clone())),
            (true, None, None, Step::Nothing),
            // What the user took back, the host must not keep.
            (true, None, Some(&old), Step::Remove),
            (false, Some(&new), Some(&new), Step::Remove),
            (false, Some(&new), None, Step::Nothing),
            (false, None, Some(&old), Step::Remove),
        ] {
            assert!(next(needed, given.cloned(), there) == step, "{needed} {step:?}");
        }
    }

    #[test]
    fn a_secret_is_looked_at_again_soon_while_it_is_missing_or_refused() {
        let waits = volume(true, json!({}), condition("Ready", "False", "Importing"));
        let refused = volume(true, json!({}), condition("Ready", "False", UNAUTHORIZED));
        for (volume, needed, given, awaited) in [
            (&waits, true, false, true),
            (&waits, true, true, false),
            (&refused, true, true, true),
            (&refused, false, true, false),
            (&waits, false, false, false),
        ] {
            assert_eq!(is_awaited(volume, needed, given), awaited);
        }
    }

    #[test]
    fn a_copy_is_stale_where_no_volume_of_its_uid_needs_it() {
        let on = |host: &str| volume(true, json!({}), json!({"host": host}));
        let unbound = volume(true, json!({}), json!({}));
        let made = volume(true, json!({}), json!({"host": "a", "path": "/p/v"}));
        for (uid, volumes, stale) in [
            ("u", vec![], true),
            ("u", vec![&unbound], false),
            ("v", vec![&unbound], true),
            ("u", vec![&on("a")], false),
            ("u", vec![&on("b")], true),
            ("u", vec![&on("b"), &made], true),
        ] {
            assert_eq!(is_stale(uid, "a", volumes.iter().copied()), stale, "{uid} {}", volumes.len());
        }
    }
}

//! Images behind a password or a token, on a server of an authority of its own: they come, the server's secret reaches nobody else, and each
//! thing that is wrong says so until it is corrected.

use crds::StorageVolume;
use crds::storage_volume::VolumePhase;
use e2e::HOSTS;
use e2e::secure_images::{Authority, Heard, SecureImages};
use e2e::story::{Story, until};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// A word that nobody else says.
fn canary() -> String {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    format!("canary{}", random.trim().replace('-', ""))
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// All files below a folder that are not another story's.
fn files(story: &Story, dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let pool = path.parent().is_some_and(|parent| parent.ends_with("var/lib/virtfleet"));
        if kind.is_dir() && (!pool || path.ends_with(&story.namespace)) {
            files(story, &path, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

/// A file's bytes; of the API server's audit log without what the administrator wrote, which specs are part of.
fn written_by_us(file: &Path, bytes: Vec<u8>) -> Vec<u8> {
    if !file.ends_with("log/audit.jsonl") {
        return bytes;
    }
    let is_ours =
        |line: &&[u8]| String::from_utf8_lossy(line).contains(r#""username":"system:serviceaccount:virtfleet-"#);
    bytes.split(|byte| *byte == b'\n').filter(is_ours).collect::<Vec<_>>().concat()
}

/// Looks for the words wherever something of ours is written or shown, but for specs and the Secrets themselves.
async fn nobody_tells(story: &Story, words: &[&str]) {
    let mut shown: Vec<(String, Vec<u8>)> = Vec::new();
    for volume in story.api::<StorageVolume>().list(&ListParams::default()).await.unwrap() {
        let text = serde_json::to_vec(&(&volume.status, &volume.metadata)).unwrap();
        shown.push((format!("volume {}", volume.name_any()), text));
    }
    for host in HOSTS {
        shown.push((format!("host {host}"), serde_json::to_vec(&story.host(host).await).unwrap()));
        let pool = story.virsh(host, &["pool-dumpxml", &story.namespace]).unwrap();
        shown.push((format!("pool of {host}"), pool.into()));
        for file in story.virsh(host, &["vol-list", &story.namespace]).unwrap().lines() {
            let name = file.split_whitespace().next().unwrap_or_default();
            let told = story.virsh(host, &["vol-dumpxml", name, "--pool", &story.namespace]).unwrap_or_default();
            shown.push((format!("volume {name} of {host}"), told.into()));
        }
        for domain in story.virsh(host, &["list", "--all", "--name"]).unwrap().lines() {
            let told = story.virsh(host, &["dumpxml", domain, "--security-info"]).unwrap_or_default();
            shown.push((format!("domain {domain} of {host}"), told.into()));
        }
    }
    let events = story.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert!(!events.items.is_empty());
    shown.push(("events".into(), serde_json::to_vec(&events).unwrap()));
    let mut found = Vec::new();
    ["log", "node-a", "node-b"].iter().for_each(|dir| files(story, &story.run.dir.join(dir), &mut found));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let numbered = process.file_name().to_string_lossy().parse::<u32>().is_ok();
        found.extend(
            numbered.then(|| ["cmdline", "environ"].map(|file| process.path().join(file))).into_iter().flatten(),
        );
    }
    let pool = story.outside("node-a", &format!("/var/lib/virtfleet/{}", story.namespace));
    assert!(found.iter().any(|file| file.starts_with(&pool)) && found.iter().any(|f| f.ends_with("agent-node-a.log")));
    let read = |file: PathBuf| Some((file.display().to_string(), written_by_us(&file, fs::read(&file).ok()?)));
    shown.extend(found.into_iter().filter_map(read));
    let tellers = |words: &[&str]| {
        let tells = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            words.iter().any(|word| text.contains(word))
        };
        shown.iter().filter(|(_, bytes)| tells(bytes)).map(|(place, _)| place.as_str()).collect::<Vec<_>>()
    };
    // What is no secret is told in all these ways.
    let known = tellers(&["guest.qcow2"]);
    assert!(known.contains(&"events") && known.iter().any(|place| place.ends_with("agent-node-a.log")), "{known:?}");
    assert_eq!(tellers(words), [""; 0]);
}

#[tokio::test]
async fn an_image_behind_a_password_comes_and_the_password_is_told_to_its_server_alone() {
    let story = Story::alone("password").await;
    let (authority, password, wrong) = (Authority::new().unwrap(), canary(), canary());
    let basic = base64(&format!("me:{password}"));
    let comment = canary();
    let bundle = format!("{}# {comment}\n", authority.certificate);
    let server = SecureImages::start(&story.run, &authority, &[format!("Basic {basic}")], "").await.unwrap();
    story.secret("login", json!({"username": "me", "password": wrong, "other": "not used"})).await;
    let more = json!({"secret": "login", "caBundle": bundle});
    story
        .apply(story.secret_volume("slow", "node-a", &format!("{}/slow/guest.qcow2", server.url), more))
        .await
        .unwrap();

    let refused = story.volume_is("slow", "False", "ImportUnauthorized").await;
    let ready = refused.status.as_ref().unwrap().conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert!(ready.message.contains("401") && ready.message.contains("correct the Secret"), "{ready:?}");
    assert_eq!(refused.status.as_ref().unwrap().phase, Some(VolumePhase::Failed));
    let held = story.secret_copy("node-a", &refused).await.expect("it is needed");
    let keys: Vec<_> = held.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["password", "username"], "only what is used");
    assert_eq!(held.annotations()["virtfleet.dev/volume"], "password/slow");

    story.secret("login", json!({"username": "me", "password": password})).await;
    let received = || {
        let mut all = Vec::new();
        files(&story, &story.outside("node-a", "/var/lib/virtfleet/password"), &mut all);
        let part = all.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "part"));
        part.map_or(0, |part| part.metadata().map_or(0, |metadata| metadata.len()))
    };
    until("some of it", async || (received() > 4 << 20).then_some(()).ok_or("not yet")).await;
    let words = [&password, &wrong, &comment, &basic, &base64(&format!("me:{wrong}")), &base64(&password)];
    let words = words.map(String::as_str);
    nobody_tells(&story, &words).await;
    assert!(story.secret_copy("node-a", &refused).await.is_some(), "it is needed until the image is there");

    // Whoever goes on with it is asked for the password again.
    let pid = story.pid("agent-node-a");
    story.kill("agent-node-a");
    story.back("agent-node-a", pid).await;
    let ready = story.volume_is("slow", "True", "Ready").await;
    let resumed = |heard: &Heard| heard.range.is_some() && heard.authorization == Some(format!("Basic {basic}"));
    assert!(server.heard().iter().any(resumed), "{} requests", server.heard().len());
    story.no_secret_copy("node-a", &ready).await;
    nobody_tells(&story, &words).await;
    story.end().await;
}

#[tokio::test]
async fn a_token_is_waited_for_and_carried_to_no_other_server() {
    let story = Story::new("token").await;
    let (authority, token) = (Authority::new().unwrap(), canary());
    let other = SecureImages::start(&story.run, &authority, &[], "").await.unwrap();
    let bearer = format!("Bearer {token}");
    let server = SecureImages::start(&story.run, &authority, std::slice::from_ref(&bearer), &other.url).await.unwrap();
    let named = |bundle: &str| json!({"secret": "pass", "caBundle": bundle});
    let url = format!("{}/leave/guest.qcow2", server.url);
    story.apply(story.secret_volume("moved", "node-a", &url, named(&authority.certificate))).await.unwrap();
    let missing = story.volume_is("moved", "False", "SecretMissing").await;
    assert!(story.secret_copy("node-a", &missing).await.is_none());
    assert_eq!(server.heard(), [], "nothing is asked without it");

    story.secret("pass", json!({"token": format!("{token}\n")})).await;
    let ready = story.volume_is("moved", "True", "Ready").await;
    let heard = |path: &str, authorization: Option<&String>| Heard {
        path: path.into(),
        authorization: authorization.cloned(),
        range: None,
    };
    assert_eq!(server.heard(), [heard("/leave/guest.qcow2", Some(&bearer))]);
    assert_eq!(other.heard(), [heard("/open/guest.qcow2", None)]);
    story.no_secret_copy("node-a", &ready).await;

    // Nobody vouches for the server, or somebody else does.
    let stranger = Authority::new().unwrap().certificate;
    for (name, more) in [("unknown", json!({"secret": "pass"})), ("stranger", named(&stranger))] {
        story.apply(story.secret_volume(name, "node-a", &url, more)).await.unwrap();
        let volume = story.volume_is(name, "False", "TlsFailed").await;
        let message = &volume.status.unwrap().conditions.iter().find(|c| c.type_ == "Ready").unwrap().message.clone();
        assert!(message.contains("spec.source.http.caBundle"), "{message}");
    }
    // Who demands it anew after a redirection is told nothing.
    let closed = SecureImages::start(&story.run, &authority, std::slice::from_ref(&bearer), "").await.unwrap();
    let leads = format!("{}/plain/guest.qcow2?", closed.url);
    let door = SecureImages::start(&story.run, &authority, std::slice::from_ref(&bearer), &leads).await.unwrap();
    let url = format!("{}/leave/guest.qcow2", door.url);
    story.apply(story.secret_volume("closed", "node-a", &url, named(&authority.certificate))).await.unwrap();
    story.volume_is("closed", "False", "ImportUnauthorized").await;
    assert!(closed.heard().iter().all(|heard| heard.authorization.is_none()) && !closed.heard().is_empty());
    assert_eq!(server.heard().len(), 1, "no request went out over a connection that is not trusted");
    nobody_tells(&story, &[&token, &base64(&token)]).await;
    story.end().await;
}

//! Flux brings `examples/` from a Git server into the cluster, puts right what somebody changed by hand, and prunes what left Git. Its own
//! controllers, as they are (`VIRTFLEET_FLUX`, e2e/flux/build.sh); git's own HTTP server.

use e2e::shell::output;
use e2e::story::{Story, until};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[tokio::test]
#[ignore = "needs Flux's controllers: make test-flux"]
async fn flux_applies_corrects_and_prunes() {
    let story = Story::new("flux").await;
    let _programs = Flux::start(&story);
    let git = Git::new(&story.run.dir.join("flux/work"));

    story.kubectl(&["label", "host/node-a", "flux=fast"]).unwrap();
    for example in EXAMPLES {
        let file = format!("{example}.yaml");
        fs::copy(story.run.checkout.join("examples").join(&file), git.0.join(file)).unwrap();
    }
    git.write("kustomization", &bed(&story, &EXAMPLES));
    git.commit("the examples");
    for (name, spec) in flux_objects(story.run.address()) {
        let (group, kind) = name;
        let object = json!({"apiVersion": group, "kind": kind, "metadata": {"name": "fleet"}, "spec": spec});
        apply(&story, &object);
    }

    // Flux says that it is ready when all of it is.
    story.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "kustomization/fleet"]).unwrap();
    let vm = story.vm("web").await.unwrap();
    let host = vm.status.as_ref().and_then(|status| status.host.clone()).unwrap();
    assert_eq!([story.domain(&host, "flux.web"), story.domain("node-a", "flux.db")], ["running"; 2]);
    story.snapshot_is("before-upgrade", "True", "Ready").await;

    // By hand: put back, and the guest is not stopped.
    story.kubectl(&["patch", "vm/web", "--type=merge", "-p", r#"{"spec":{"powerState":"Stopped"}}"#]).unwrap();
    until("what Git says of web", async || {
        let vm = story.vm("web").await.ok_or("gone")?;
        let said = serde_json::to_value(&vm.spec).unwrap_or_default()["powerState"].clone();
        if said == "Running" { Ok(()) } else { Err(said.to_string()) }
    })
    .await;
    story.vm_is("web", "True", "Running").await;

    // Pruned: the machines go with their own volumes; the volume that a user wrote keeps its file.
    let path = story.volume("data").await.unwrap().status.unwrap().path.unwrap();
    git.write("kustomization", &bed(&story, &["pool"]));
    git.commit("no machine");
    until("the end of what left Git", async || {
        let machines = [story.vm("web").await.is_some(), story.vm("db").await.is_some()];
        let left = (machines, story.volume("data").await.is_some(), story.snapshot("before-upgrade").await.is_some());
        if left == ([false, false], false, false) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!([story.domain(&host, "flux.web"), story.domain("node-a", "flux.db")], ["absent"; 2]);
    assert!(story.outside("node-a", &path).exists(), "Retain");

    story.kubectl(&["delete", "kustomization/fleet", "gitrepository/fleet"]).unwrap();
    story.kubectl(&["label", "host/node-a", "flux-"]).unwrap();
    story.end().await;
}

/// What one would put into Git: the hosts are there already, and one shared directory is not in the bed.
const EXAMPLES: [&str; 5] = ["pool", "volume", "machine", "machine-with-data", "snapshot"];

/// The examples as they are, but for what an emulated host bears, the bed's own image and label.
fn bed(story: &Story, examples: &[&str]) -> Value {
    let small = json!({"op": "replace", "path": "/spec/memory/size", "value": "128Mi"});
    let image = json!({"op": "replace", "path": "/spec/disks/0/volumeTemplate/spec/source/http",
        "value": story.image("", "guest.qcow2")});
    let any = json!({"op": "replace", "path": "/spec/cpu", "value": {"cores": 1}});
    let label = json!({"op": "replace", "path": "/spec/placement/hostSelector/matchLabels", "value": {"flux": "fast"}});
    // Its blank disk boots nothing that would shut down.
    let shutdown =
        json!({"op": "replace", "path": "/spec/shutdown", "value": {"timeoutSeconds": 1, "onTimeout": "Destroy"}});
    let patch = |name: &str, operations: &[&Value]| {
        let patch = serde_json::to_string(operations).unwrap();
        json!({"target": {"kind": "VirtualMachine", "name": name}, "patch": patch})
    };
    let machines = [
        ("machine", patch("web", &[&small, &image, &any])),
        ("machine-with-data", patch("db", &[&small, &any, &label, &shutdown])),
    ];
    let patches = machines.into_iter().filter(|(of, _)| examples.contains(of)).map(|(_, patch)| patch);
    json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": examples.iter().map(|example| format!("{example}.yaml")).collect::<Vec<_>>(),
        "patches": patches.collect::<Vec<_>>()})
}

/// Where to look, and what to do with it.
fn flux_objects(address: Ipv4Addr) -> [((&'static str, &'static str), Value); 2] {
    let repository = json!({
        "url": format!("http://{address}:8418/cgi-bin/git/fleet.git"), "ref": {"branch": "main"}, "interval": "2s",
    });
    let kustomization = json!({
        "sourceRef": {"kind": "GitRepository", "name": "fleet"}, "path": "./", "interval": "2s", "retryInterval": "2s",
        "prune": true, "wait": true, "timeout": "100s", "targetNamespace": "flux",
    });
    [
        (("source.toolkit.fluxcd.io/v1", "GitRepository"), repository),
        (("kustomize.toolkit.fluxcd.io/v1", "Kustomization"), kustomization),
    ]
}

fn apply(story: &Story, object: &Value) {
    let file = story.run.dir.join("flux/object.json");
    fs::write(&file, object.to_string()).unwrap();
    story.kubectl(&["apply", "-f", &file.to_string_lossy()]).unwrap();
}

/// Flux's controllers and a Git server, until it is dropped.
struct Flux(Vec<Child>);

impl Flux {
    fn start(story: &Story) -> Flux {
        let built =
            PathBuf::from(std::env::var("VIRTFLEET_FLUX").expect("VIRTFLEET_FLUX: e2e/flux/build.sh prints it"));
        let dir = story.run.dir.join("flux");
        fs::create_dir_all(dir.join("www/cgi-bin")).unwrap();
        story.kubectl(&["apply", "--server-side", "-f", &built.join("crds").to_string_lossy()]).unwrap();
        let address = story.run.address();
        let config = story.run.kubeconfig("admin");
        let run = |name: &str, argv: &[String]| {
            let log = fs::File::create(story.run.dir.join("log").join(format!("{name}.log"))).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).args(argv).current_dir(&dir).stdin(Stdio::null());
            command.env("KUBECONFIG", &config).env("RUNTIME_NAMESPACE", "flux").env("TMPDIR", &dir).env("HOME", &dir);
            command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
        };
        let flux = |name: &str, ports: u16, more: &[String]| {
            let mut argv =
                vec![built.join(name).to_string_lossy().into_owned(), "--enable-leader-election=false".into()];
            argv.extend(
                ["metrics", "health"].iter().zip(ports..).map(|(of, port)| format!("--{of}-addr={address}:{port}")),
            );
            run(name, &[&argv[..], more].concat())
        };
        let store = [
            format!("--storage-path={}", dir.join("store").display()),
            format!("--storage-addr={address}:9792"),
            format!("--storage-adv-addr={address}:9792"),
        ];
        fs::create_dir_all(dir.join("store")).unwrap();
        let script = dir.join("www/cgi-bin/git");
        let lines = format!(
            "#!/bin/sh\nexport GIT_PROJECT_ROOT='{}' GIT_HTTP_EXPORT_ALL=1\nexec git http-backend\n",
            dir.display()
        );
        fs::write(&script, lines).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let www = dir.join("www").to_string_lossy().into_owned();
        let server = ["busybox", "httpd", "-f", "-p", &format!("{address}:8418"), "-h", &www].map(str::to_owned);
        Flux(vec![
            run("git", &server),
            flux("source-controller", 9790, &store),
            flux("kustomize-controller", 9794, &[]),
        ])
    }
}

impl Drop for Flux {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A working copy and the repository beside it that is served.
struct Git(PathBuf);

impl Git {
    fn new(work: &Path) -> Git {
        let git = Git(work.to_owned());
        let bare = work.with_file_name("fleet.git").to_string_lossy().into_owned();
        output(&["git", "init", "-q", "--bare", "-b", "main", &bare]).unwrap();
        output(&["git", "init", "-q", "-b", "main", &work.to_string_lossy()]).unwrap();
        git.run(&["remote", "add", "origin", &bare]);
        git
    }

    fn write(&self, name: &str, manifest: &Value) {
        fs::write(self.0.join(format!("{name}.yaml")), manifest.to_string()).unwrap();
    }

    fn commit(&self, why: &str) {
        self.run(&["add", "-A"]);
        self.run(&["-c", "user.name=fleet", "-c", "user.email=fleet@example.com", "commit", "-q", "-m", why]);
        self.run(&["push", "-q", "origin", "main"]);
    }

    fn run(&self, words: &[&str]) {
        let dir = self.0.to_string_lossy();
        output(&[&["git", "-C", &*dir], words].concat()).unwrap();
    }
}

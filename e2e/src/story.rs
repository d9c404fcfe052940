//! What a story needs: the bed that `VIRTFLEET_RUN` names, a namespace of its own, manifests in, what became of them out. Does I/O.

mod agents;
pub mod history;
mod manifests;
mod programs;
mod secrets;
mod tools;
mod versions;

pub use agents::token_of;
pub use manifests::{manifest, merged};
pub use programs::length_of_absence;
pub use versions::Previous;

use crate::host::Host as BedHost;
use crate::run::Run;
use crate::shell::output;
use crate::{HOSTS, Result};
use crds::conditions::{Type, find};
use crds::{Condition, Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, NamespaceResourceScope};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What a story waits for at most: an emulated guest boots in 7 s on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Stories that take something away from all others run alone.
static BED: RwLock<()> = RwLock::const_new(());

/// Held as long as a story runs.
#[derive(Debug)]
#[allow(dead_code)]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// One story.
pub struct Story {
    /// The bed.
    pub run: Run,
    /// The administrator.
    pub client: Client,
    /// The story's own namespace.
    pub namespace: String,
    begun: Instant,
    _turn: Turn,
}

impl Story {
    /// A story beside others; `name` is that of its namespace and its pool.
    pub async fn new(name: &str) -> Story {
        let turn = Turn::Shared(BED.read().await);
        Story::begin(name, turn).await
    }

    /// A story that needs the bed for itself.
    pub async fn alone(name: &str) -> Story {
        let turn = Turn::Alone(BED.write().await);
        Story::begin(name, turn).await
    }

    async fn begin(name: &str, turn: Turn) -> Story {
        let begin = async || -> Result<Story> {
            let run = Run::given()?;
            let client = client(&run, "admin").await?;
            let story = Story { run, client, namespace: name.into(), begun: Instant::now(), _turn: turn };
            story.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
            let dir = format!("/var/lib/virtfleet/{name}");
            story.apply(manifest("StoragePool", name, json!({"dir": {"path": dir}}))).await?;
            Ok(story)
        };
        begin().await.unwrap_or_else(|error| panic!("the bed is not up (VIRTFLEET_RUN): {error}"))
    }

    /// Applies a manifest as `kubectl apply --server-side` does; what has no namespace gets the story's.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn apply(&self, manifest: Value) -> kube::Result<DynamicObject> {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let parameters = PatchParams {
            field_validation: Some(kube::api::ValidationDirective::Strict),
            ..PatchParams::apply("story").force()
        };
        self.dynamic(&manifest).patch(&name, &parameters, &Patch::Apply(&manifest)).await
    }

    /// Merges a patch into an object of the story's namespace.
    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let result = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        result.unwrap_or_else(|error| panic!("patching {name}: {error}"));
    }

    /// Creates a manifest without storing it, and gives the API server's words if it refuses.
    pub async fn refusal(&self, manifest: Value) -> Option<String> {
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap_or_else(|e| panic!("{e}"));
        let parameters = PostParams { dry_run: true, field_manager: None };
        self.dynamic(&manifest).create(&parameters, &object).await.err().map(|error| error.to_string())
    }

    fn dynamic(&self, manifest: &Value) -> Api<DynamicObject> {
        let text = |key: &str| manifest[key].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
        if ["Namespace", "StoragePool", "Host", "Node"].contains(&text("kind")) {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// The story's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A machine as it is now.
    pub async fn vm(&self, name: &str) -> Option<VirtualMachine> {
        self.api().get_opt(name).await.unwrap_or_default()
    }

    /// A volume as it is now.
    pub async fn volume(&self, name: &str) -> Option<StorageVolume> {
        self.api().get_opt(name).await.unwrap_or_default()
    }

    /// The story's pool.
    pub async fn pool(&self) -> Option<StoragePool> {
        Api::all(self.client.clone()).get_opt(&self.namespace).await.unwrap_or_default()
    }

    /// A host as it is now.
    pub async fn host(&self, name: &str) -> Option<Host> {
        Api::all(self.client.clone()).get_opt(name).await.unwrap_or_default()
    }

    /// Waits until the machine's Ready is of that status and reason.
    pub async fn vm_is(&self, name: &str, status: &str, reason: &str) -> VirtualMachine {
        until(&format!("VirtualMachine {name} Ready={status}/{reason}"), async || {
            let vm = self.vm(name).await.ok_or("it is not there".to_owned())?;
            let conditions = vm.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            is(&conditions, Type::Ready, status, reason, vm.metadata.generation).map(|()| vm)
        })
        .await
    }

    /// Waits until the volume's Ready is of that status and reason.
    pub async fn volume_is(&self, name: &str, status: &str, reason: &str) -> StorageVolume {
        until(&format!("StorageVolume {name} Ready={status}/{reason}"), async || {
            let volume = self.volume(name).await.ok_or("it is not there".to_owned())?;
            let conditions = volume.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            is(&conditions, Type::Ready, status, reason, None).map(|()| volume)
        })
        .await
    }

    /// Waits until the host's Ready is of that status.
    pub async fn host_is(&self, name: &str, status: &str) {
        until(&format!("Host {name} Ready={status}"), async || {
            let host = self.host(name).await.ok_or("it is not there".to_owned())?;
            let conditions = host.status.map(|status| status.conditions).unwrap_or_default();
            match find(&conditions, Type::Ready) {
                Some(ready) if ready.status == status => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Deletes an object and waits until it is gone.
    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>();
        api.delete(name, &DeleteParams::default()).await.unwrap_or_else(|error| panic!("deleting {name}: {error}"));
        until(&format!("the end of {name}"), async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            Ok(Some(object)) => Err(format!("{:?}", object.meta())),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// A host's libvirt, asked by `virsh`.
    pub fn virsh(&self, host: &str, words: &[&str]) -> Result<String> {
        let uri = self.bed_host(host).libvirt_uri();
        let mut argv = vec!["virsh", "-q", "-c", &uri];
        argv.extend(words);
        output(&argv).map(|text| text.trim().to_owned())
    }

    /// `virsh domstate`, or `absent`.
    pub fn domain(&self, host: &str, name: &str) -> String {
        self.virsh(host, &["domstate", name]).unwrap_or_else(|_| "absent".into())
    }

    /// Name of a machine's domain.
    pub fn domain_name(&self, vm: &str) -> String {
        format!("{}.{vm}", self.namespace)
    }

    /// What a machine's guest wrote to its serial console.
    pub fn console(&self, host: &str, vm: &str) -> String {
        let log = format!("/var/log/libvirt/virtfleet/{}.log", self.domain_name(vm));
        fs::read(self.bed_host(host).outside(&log))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until the guest's console holds a text.
    pub async fn console_says(&self, host: &str, vm: &str, words: &str) {
        until(&format!("{words:?} on the console of {vm}"), async || {
            let text = self.console(host, vm);
            text.contains(words).then_some(()).ok_or_else(|| tail(&text))
        })
        .await;
    }

    /// Last second that the guest counted on its console.
    pub fn ticks(&self, host: &str, vm: &str) -> u64 {
        let text = self.console(host, vm);
        text.lines().rev().find_map(|line| line.trim().strip_prefix("tick ")?.parse().ok()).unwrap_or_default()
    }

    /// The host's folder as seen from outside.
    pub fn outside(&self, host: &str, path: &str) -> PathBuf {
        self.bed_host(host).outside(path)
    }

    /// Runs a program within a host's namespaces, as its administrator would.
    ///
    /// # Errors
    /// When it fails.
    pub fn on_host(&self, host: &str, argv: &[&str]) -> Result<String> {
        self.bed_host(host).enter(&self.run, argv)
    }

    /// Files in the story's pool on a host, but for the pool's own mark; sorted.
    pub fn files(&self, host: &str) -> Vec<String> {
        let dir = self.outside(host, &format!("/var/lib/virtfleet/{}", self.namespace));
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name != ".virtfleet-pool").collect();
        names.sort();
        names
    }

    fn bed_host(&self, host: &str) -> BedHost {
        BedHost::of(&self.run, HOSTS.iter().position(|name| *name == host).unwrap_or_default())
    }

    /// Deletes all that is in the namespace, the namespace and the pool, and looks that the hosts have nothing of it left.
    pub async fn end(self) {
        // The namespace's own controller looks seldom; users delete what they made first.
        self.empty().await;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        until("the end of the namespace", async || match namespaces.get_opt(&self.namespace).await {
            Ok(None) => Ok(()),
            Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
            Err(error) => Err(error.to_string()),
        })
        .await;
        let pools = Api::<StoragePool>::all(self.client.clone());
        let _ = pools.delete(&self.namespace, &DeleteParams::default()).await;
        until("the end of the pool", async || match pools.get_opt(&self.namespace).await {
            Ok(None) => Ok(()),
            Ok(Some(pool)) => Err(format!("{:?}", pool.status)),
            Err(error) => Err(error.to_string()),
        })
        .await;
        for host in HOSTS {
            let left = self.virsh(host, &["list", "--all", "--name"]).unwrap_or_default();
            assert!(!left.contains(&format!("{}.", self.namespace)), "{host} still has {left}");
        }
        let line = format!("{:>5} s  {}\n", self.begun.elapsed().as_secs(), self.namespace);
        let log = fs::File::options().create(true).append(true).open(self.run.dir.join("log/stories"));
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }

    /// Deletes all machines and volumes of the namespace.
    pub async fn empty(&self) {
        self.delete_all::<VirtualMachine>().await;
        self.delete_all::<Snapshot>().await;
        self.delete_all::<StorageVolume>().await;
    }

    async fn delete_all<K>(&self)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>();
        let _ = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        until(&format!("the end of all {}", K::plural(&())), async || match api.list(&ListParams::default()).await {
            Ok(list) if list.items.is_empty() => Ok(()),
            Ok(list) => Err(format!("{} are left, among them {:?}", list.items.len(), list.items.first())),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}

/// A client of the bed's API server.
///
/// # Errors
/// When there is no such kubeconfig.
pub async fn client(run: &Run, who: &str) -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(run.kubeconfig(who))?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)?)
}

/// Tries each 100 ms until it works, or fails the test with the last error.
pub async fn until<T, E: std::fmt::Display>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if start.elapsed() > PATIENCE => panic!("{what}: not within {} s: {error}", PATIENCE.as_secs()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

pub(crate) fn is(
    conditions: &[Condition],
    kind: Type,
    status: &str,
    reason: &str,
    generation: Option<i64>,
) -> Result<(), String> {
    match find(conditions, kind) {
        Some(found)
            if found.status == status
                && found.reason == reason
                && (generation.is_none() || found.observed_generation == generation) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?} of {conditions:?}")),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

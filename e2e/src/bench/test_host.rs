//! A third Host whose libvirt is libvirt's own test driver, in the libvirtd of the bed's first host: a thousand domains that cost nothing
//! but what we do with them. Its agent is the bench's own. Does I/O.

use crate::host::Host as BedHost;
use crate::run::Run;
use crate::shell::output;
use crate::story::{Story, manifest, until};
use crate::{Result, pki};
use crds::Host;
use kube::Api;
use kube::api::DeleteParams;
use libvirt::{Event, Libvirt, Settings};
use serde_json::{Value, json};
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// The Host's name.
pub const NAME: &str = "bench-test";

/// The Host, as long as it is measured.
pub struct TestHost {
    /// Its libvirt. The driver forgets its domains when nobody is connected: this stays through the agent's restarts.
    pub libvirt: Libvirt,
    agent: Child,
    run: Run,
}

impl TestHost {
    /// Makes the Host and starts its agent with a token of its own.
    ///
    /// # Errors
    /// When something of it does not start.
    pub async fn start(story: &Story) -> Result<TestHost> {
        let run = story.run.clone();
        let (libvirt, mut events) = Libvirt::start(Settings::new(uri(&run)))?;
        let connected = async {
            while events.recv().await.ok_or("no events")? != Event::Connected {}
            Ok::<_, &str>(())
        };
        tokio::time::timeout(Duration::from_secs(20), connected).await??;
        // Its events are of no use here, and the connection ends with them.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        // The driver's machine is small; a thousand guests that do not exist fit in all the same.
        story.apply(manifest("Host", NAME, json!({"overcommit": {"cpu": "1024", "memory": "1024"}}))).await?;
        let token = until("the account of the test host", async || {
            let config = format!("--kubeconfig={}", run.kubeconfig("admin").display());
            let kubectl = run.cluster_program("kubectl");
            output(&[&kubectl, &config, "create", "token", NAME, "-n", "virtfleet-hosts", "--duration=24h"])
        })
        .await;
        pki::write_token_kubeconfig(&run, NAME, token.trim())?;
        let agent = spawn(&run)?;
        story.host_is(NAME, "True").await;
        Ok(TestHost { libvirt, agent, run })
    }

    /// Kills the agent.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn stop_agent(&mut self) -> Result<()> {
        Ok(self.agent.kill().await?)
    }

    /// Kills the agent, if it runs, and starts it again; returns at once.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart_agent(&mut self) -> Result<()> {
        self.stop_agent().await?;
        self.agent = spawn(&self.run)?;
        Ok(())
    }

    /// Process id of the agent.
    ///
    /// # Errors
    /// When it has ended.
    pub fn agent_pid(&self) -> Result<u32> {
        Ok(self.agent.id().ok_or("the test host's agent has ended")?)
    }

    /// What the agent answers there; an error while it does not listen or is not ready.
    ///
    /// # Errors
    /// When it does not answer, or answers no.
    pub async fn ask(&self, path: &str) -> Result<String> {
        Ok(reqwest::get(format!("http://{}{path}", listen(&self.run))).await?.error_for_status()?.text().await?)
    }

    /// How often its agent called a function of libvirt.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub async fn calls(&self) -> Result<Vec<(String, u64)>> {
        let text = self.ask("/metrics").await?;
        let read = |line: &str| {
            let (name, count) = line.strip_prefix("virtfleet_libvirt_calls{call=\"")?.split_once("\"} ")?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        Ok(text.lines().filter_map(read).collect())
    }

    /// A machine without devices that is placed here.
    pub fn machine(&self, name: &str) -> Value {
        let spec = json!({"cpu": {}, "memory": {"size": "16Mi"}, "placement": {"host": NAME}, "shutdown": {"timeoutSeconds": 1}});
        manifest("VirtualMachine", name, spec)
    }

    /// Deletes the Host, whose machines must be gone, and ends its agent.
    ///
    /// # Errors
    /// The API server's answer.
    pub async fn end(mut self, story: &Story) -> Result<()> {
        let hosts = Api::<Host>::all(story.client.clone());
        hosts.delete(NAME, &DeleteParams::default()).await?;
        until("the end of the test host", async || match hosts.get_opt(NAME).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        Ok(self.agent.kill().await?)
    }
}

/// The driver's address, served by the libvirtd of the bed's first host.
fn uri(run: &Run) -> String {
    let socket = BedHost::of(run, 0).outside("/run/libvirt/libvirt-sock");
    format!("test+unix:///default?socket={}", socket.display())
}

fn listen(run: &Run) -> String {
    format!("{}:9181", run.address())
}

fn spawn(run: &Run) -> Result<Child> {
    let log = File::options().create(true).append(true).open(run.dir.join(format!("log/agent-{NAME}.log")))?;
    let words = [
        ("--host", NAME.to_owned()),
        ("--kubeconfig", run.kubeconfig(NAME).display().to_string()),
        ("--libvirt-uri", uri(run)),
        ("--listen", listen(run)),
    ];
    // It ends with the bench, also when that is killed.
    let command = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(run.dir.join("bin/virtfleet-agent"))
        .args(words.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(command)
}

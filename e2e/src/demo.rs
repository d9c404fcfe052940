//! Shows on a bed what a user does and what becomes of it, step by step; leaves everything running. Does I/O.

use crate::host::Host;
use crate::run::Run;
use crate::shell::output;
use crate::{HOSTS, Result, install};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(180);

/// Plays the demo in the run that `dev` remembers.
///
/// # Errors
/// When something does not become real in time.
pub fn demo(dev: &Path) -> Result<()> {
    let run = Run::remembered(dev)?.ok_or("the bed is not up")?;
    let demo = Demo { run };
    demo.step("A StoragePool: a directory on both hosts", "1-pool.yaml")?;
    demo.wait("pool images", |demo| {
        let ready = demo.field("storagepool/images", "{.status.hosts.ready}")?;
        Ok((ready == "2", format!("ready on {} of 2 hosts", if ready.is_empty() { "0" } else { &ready })))
    })?;

    demo.step("A StorageVolume: imported over HTTP, its checksum computed on the way", "2-volume.yaml")?;
    demo.wait("volume web-root", |demo| {
        let phase = demo.field("storagevolume/web-root", "{.status.phase}")?;
        let progress = demo.field("storagevolume/web-root", "{.status.progress}")?;
        Ok((phase == "Ready", format!("{phase} {progress}")))
    })?;

    demo.step("Two VirtualMachines: placed on different hosts, booted from their disks", "3-machines.yaml")?;
    for vm in ["web", "db"] {
        demo.wait(&format!("machine {vm}"), |demo| {
            let name = format!("virtualmachine/{vm}");
            let ready = demo.field(&name, r#"{.status.conditions[?(@.type=="Ready")].reason}"#)?;
            let host = demo.field(&name, "{.status.host}")?;
            Ok((ready == "Running", format!("{ready} on {}", if host.is_empty() { "no host yet" } else { &host })))
        })?;
    }
    for vm in ["web", "db"] {
        let host = demo.field(&format!("virtualmachine/{vm}"), "{.status.host}")?;
        demo.wait(&format!("console of {vm} on {host}"), |demo| Ok(demo.console(&host, vm)))?;
    }

    demo.step("A Snapshot: taken of the running guest, which goes on in a new file", "4-snapshot.yaml")?;
    demo.wait("snapshot before-upgrade", |demo| {
        let phase = demo.field("snapshot/before-upgrade", "{.status.phase}")?;
        let method = demo.field("snapshot/before-upgrade", "{.status.method}")?;
        Ok((phase == "Ready", format!("{phase} {method}")))
    })?;

    println!("\n== What there is now");
    demo.shown(&["get", "hosts,pools,vols,vms,snaps"])?;
    println!(
        "\n== Look around\n\
         source {env}\n\
         kubectl get vms -o wide --watch\n\
         kubectl describe vm web\n\
         kubectl explain virtualmachine.spec\n\
         virsh -c \"$LIBVIRT_URI_NODE_A\" list --all\n\
         kubectl patch vm web --type merge -p '{{\"spec\":{{\"powerState\":\"Stopped\"}}}}'\n\
         kubectl delete snap before-upgrade        # merged while the guest runs\n\
         kill -9 $(cat \"$AGENT_PIDFILE_NODE_A\")    # the guest does not notice\n\
         \n== End it\n\
         make down",
        env = dev.join("env").display()
    );
    Ok(())
}

struct Demo {
    run: Run,
}

impl Demo {
    /// Says what comes, and applies a manifest, rendered for this bed.
    fn step(&self, what: &str, file: &str) -> Result<()> {
        println!("\n== {what}");
        let sums = output(&["sha256sum", &self.run.guest.join("guest.qcow2").to_string_lossy()])?;
        let text = fs::read_to_string(self.run.checkout.join("e2e/demo").join(file))?
            .replace("${IMAGES_URL}", &self.run.images())
            .replace("${GUEST_IMAGE_SHA256}", sums.split_whitespace().next().unwrap_or_default());
        let rendered = self.run.dir.join(file);
        fs::write(&rendered, text)?;
        self.shown(&["apply", "-f", &rendered.to_string_lossy()])
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        install::kubectl(&self.run, words)
    }

    /// Runs kubectl and shows what a user would see.
    fn shown(&self, words: &[&str]) -> Result<()> {
        println!("$ kubectl {}", words.join(" "));
        print!("{}", self.kubectl(words)?);
        Ok(())
    }

    fn field(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Whether the guest is up, and the last line of its serial console.
    fn console(&self, host: &str, vm: &str) -> (bool, String) {
        let index = HOSTS.iter().position(|name| *name == host).unwrap_or_default();
        let log = Host::of(&self.run, index).outside(&format!("/var/log/libvirt/virtfleet/default.{vm}.log"));
        let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        match text.lines().find(|line| line.starts_with("VIRTFLEET-GUEST-UP")) {
            Some(line) => (true, line.trim().to_owned()),
            None => (false, "the guest is booting".into()),
        }
    }

    /// Tells each change of what is waited for.
    fn wait(&self, what: &str, look: impl Fn(&Demo) -> Result<(bool, String)>) -> Result<()> {
        let (start, mut told) = (Instant::now(), String::new());
        loop {
            let (done, words) = look(self)?;
            if words != told {
                println!("   {:>3} s  {what}: {}", start.elapsed().as_secs(), words.trim());
                std::io::stdout().flush()?;
                told = words;
            }
            if done {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!(
                    "{what}: not within {} s; see {}",
                    PATIENCE.as_secs(),
                    self.run.dir.join("log").display()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

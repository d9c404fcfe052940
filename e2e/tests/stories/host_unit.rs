//! What a host outside the cluster gets: a tarball whose unit systemd understands, and whose settings the agent knows.

use e2e::run::Run;
use e2e::shell::output;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn systemd_takes_the_unit_and_the_agent_its_settings() {
    let run = Run::load(Path::new(&std::env::var("VIRTFLEET_RUN").unwrap())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (pack, agent) = (run.checkout.join("deploy/systemd/pack.sh"), run.dir.join("bin/virtfleet-agent"));
    let packed = |name: &str| {
        let file = dir.path().join(name);
        output(&[pack.as_path(), &agent, &file]).unwrap();
        file
    };
    let tarball = packed("a.tar.gz");
    assert!(fs::read(&tarball).unwrap() == fs::read(packed("b.tar.gz")).unwrap(), "the same files make other bytes");
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let unpack = || output(&["tar".as_ref(), "-xzf".as_ref(), tarball.as_path(), "-C".as_ref(), &root]).unwrap();
    unpack();
    let own = root.join("etc/virtfleet/agent.env");
    fs::write(&own, "VIRTFLEET_HOST=edge-1").unwrap();
    unpack();
    assert_eq!(fs::read_to_string(own).unwrap(), "VIRTFLEET_HOST=edge-1", "an upgrade takes the host's settings away");

    let text = fs::read_to_string(root.join("etc/systemd/system/virtfleet-agent.service")).unwrap();
    let unit = dir.path().join("virtfleet-agent.service");
    let binary = "/usr/local/bin/virtfleet-agent";
    fs::write(&unit, text.replace(binary, &format!("{}{binary}", root.display()))).unwrap();
    // It only warns of what it does not know.
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    // systemd's own measure of what a service could still do, in tenths: 96 without any of the unit's restrictions.
    let flags = ["security", "--offline=true", "--no-pager", "--threshold=25"];
    let measured = Command::new("systemd-analyze").args(flags).arg(&unit).output().unwrap();
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stdout));

    let help = output(&[agent.to_str().unwrap(), "--help"]).unwrap();
    let settings = text + &fs::read_to_string(root.join("etc/virtfleet/agent.env.example")).unwrap();
    let named = settings.lines().filter_map(|line| {
        let line = line.trim_start_matches('#').trim_start_matches("Environment=");
        line.starts_with("VIRTFLEET_").then(|| line.split_once('=')).flatten()
    });
    let named: Vec<_> = named.map(|(name, _)| name).collect();
    assert!(named.len() >= 6, "{named:?}");
    for name in named {
        assert!(help.contains(&format!("[env: {name}=")), "{name} is no setting of the agent");
    }
}

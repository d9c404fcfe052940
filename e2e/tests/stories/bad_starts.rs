//! What agent and controller say when they cannot begin: what is missing and which flag sets it.

use e2e::story::{Story, until};
use std::process::{Command, Stdio};

#[tokio::test]
async fn a_start_that_cannot_be_says_what_is_missing() {
    let story = Story::new("starts").await;
    let run = |program: &str, words: &[&str]| {
        let output = Command::new(story.run.dir.join("bin").join(program))
            .args(words)
            .env_clear()
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let config = story.run.kubeconfig("node-a").to_string_lossy().into_owned();
    let taken = format!("{}:6443", story.run.address());
    for (program, words, said) in [
        ("virtfleet-agent", &["--listen", "127.0.0.1:0"][..], "--host"),
        ("virtfleet-agent", &["--host", "x", "--kubeconfig", "/nonexistent"], "cannot read kubeconfig /nonexistent"),
        ("virtfleet-agent", &["--host", "x"], "found no way to an API server"),
        ("virtfleet-agent", &["--host", "x", "--import-allow", "ten"], "neither a network"),
        (
            "virtfleet-agent",
            &["--host", "x", "--kubeconfig", &config, "--listen", &taken],
            "choose another address with --listen",
        ),
        ("virtfleet-controller", &["--kubeconfig", "/nonexistent"], "cannot read kubeconfig /nonexistent"),
        (
            "virtfleet-controller",
            &["--kubeconfig", &config, "--listen", &taken],
            "choose another address with --listen",
        ),
    ] {
        let text = run(program, words);
        assert!(text.contains(said), "{program} {words:?} said: {text}");
    }

    // Without a libvirtd it waits and says for what; asked to stop, it does.
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut agent = Command::new(story.run.dir.join("bin/virtfleet-agent"))
        .args(["--host", "starts", "--kubeconfig", &config, "--listen", "127.0.0.1:0", "--libvirt-uri", uri])
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    until("its complaint", async || {
        let text = std::fs::read_to_string(log.path()).unwrap();
        (text.contains("waiting for libvirt") && text.contains("/nonexistent/libvirt-sock")).then_some(()).ok_or(text)
    })
    .await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&agent), rustix::process::Signal::TERM).unwrap();
    let ended = agent.wait().unwrap();
    assert!(ended.success(), "{ended}");
    story.end().await;
}

//! The daemon that owns every program of the bed: starts it, starts it again when it dies, and ends it. Does I/O.
//!
//! It runs on one thread: a child's parent-death signal is tied to the thread that started it. A program inside a host is entered by
//! `nsenter`, whose child is the real one; `pid/<name>` holds that child's id as seen from outside.

use crate::host::Host;
use crate::program::{Kind, Program, init_of};
use crate::run::Run;
use crate::{HOSTS, Result, control_plane, net, node, pki};
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const LOOK: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A program that ran this long is not one that keeps failing.
const SOUND: Duration = Duration::from_secs(5);
const TERM: Duration = Duration::from_secs(10);

/// Runs the bed until it is told to end.
///
/// # Errors
/// When it cannot begin.
#[tokio::main(flavor = "current_thread")]
pub async fn keep(mut run: Run) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    fs::write(run.pid_file("keeper"), std::process::id().to_string())?;
    net::make_bridge(&mut run)?;
    pki::make(&run)?;
    let mut programs = control_plane::programs(&run)?;
    for index in 0..HOSTS.len() {
        let host = Host::of(&run, index);
        host.prepare(&run)?;
        programs.extend(host.programs(&run));
    }
    // On a cluster with a node it runs there.
    if run.node.is_none() {
        programs.push(controller(&run));
    }
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    programs.push(Program::plain("images", vec![own, "serve".into(), run.dir.to_string_lossy().into_owned()]));

    // Later programs use earlier ones: each level ends before the one below.
    let (level, _) = watch::channel(0);
    let count = programs.len();
    let mut tasks = JoinSet::new();
    for (place, program) in programs.into_iter().enumerate() {
        tasks.spawn(supervise(run.clone(), program, count - place, level.subscribe()));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    for step in 1..=count {
        level.send_replace(step);
        while tasks.len() > count - step {
            tasks.join_next().await;
        }
    }
    net::remove_bridge(&run);
    node::remove_cgroups(&run);
    Ok(fs::remove_dir_all(&run.dir)?)
}

fn controller(run: &Run) -> Program {
    let (binary, config) = (run.dir.join("bin/virtfleet-controller"), run.kubeconfig("controller"));
    let argv = vec![
        binary.to_string_lossy().into_owned(),
        format!("--kubeconfig={}", config.display()),
        format!("--listen={}:9190", run.address()),
    ];
    Program::plain("controller", argv).after([binary, config])
}

/// Runs one program until the bed's end has come down to its level.
async fn supervise(run: Run, program: Program, ends_at: usize, mut level: watch::Receiver<usize>) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::select! {
            _ = level.wait_for(|level| *level >= ends_at) => return,
            () = startable(&run, &program) => {}
        }
        let started = Instant::now();
        let ended = match start(&run, &program).await {
            Ok(mut child) => {
                tokio::select! {
                    status = child.wait() => format!("{status:?}"),
                    _ = ended(&mut level, ends_at) => return end(&run, &program, child).await,
                }
            }
            Err(error) => error.to_string(),
        };
        let _ = fs::remove_file(run.pid_file(&program.name));
        println!("{} ended: {ended}", program.name);
        if started.elapsed() > SOUND {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            _ = level.wait_for(|level| *level >= ends_at) => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn ended(level: &mut watch::Receiver<usize>, ends_at: usize) {
    // A keeper that is gone ends everything too.
    let _ = level.wait_for(|level| *level >= ends_at).await;
}

/// Waits until the program may run: nobody holds it and what it needs is there.
async fn startable(run: &Run, program: &Program) {
    let hold = run.hold_file(&program.name);
    while hold.exists() || !program.needs.iter().all(|file| file.exists()) {
        sleep(LOOK).await;
    }
}

async fn start(run: &Run, program: &Program) -> Result<Child> {
    let mut argv = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
    if let Some(host) = &program.host {
        let init = fs::read_to_string(run.pid_file(&init_of(host)))?;
        argv.extend(
            ["nsenter", "-t", &init, "-m", "-n", "-u", "-p", "setpriv", "--pdeathsig", "KILL"].map(str::to_owned),
        );
    }
    argv.extend(program.argv.iter().cloned());
    let host = HOSTS.iter().position(|name| program.kind == Kind::HostInit && program.name == init_of(name));
    let host = host.map(|index| Host::of(run, index));
    for file in host.iter().flat_map(|host| [host.ready_file(), host.net_file()]) {
        let _ = fs::remove_file(file);
    }
    let log =
        File::options().create(true).append(true).open(run.dir.join("log").join(format!("{}.log", program.name)))?;
    let child = Command::new(&argv[0])
        .args(&argv[1..])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let wrapper = child.id().ok_or("it ended at once")?;
    let forks = program.host.is_some() || program.kind == Kind::HostInit;
    let pid = if forks { timeout(TERM, only_child(wrapper)).await? } else { wrapper };
    if let Some(host) = host {
        let mounted = async {
            while !host.ready_file().exists() {
                sleep(LOOK).await;
            }
        };
        timeout(TERM, mounted).await?;
        net::join(run, host.index, pid)?;
        fs::write(run.pid_file(&program.name), pid.to_string())?;
        fs::write(host.net_file(), "")?;
    }
    fs::write(run.pid_file(&program.name), pid.to_string())?;
    println!("{} started: {pid}", program.name);
    Ok(child)
}

/// The process that a wrapper forks to run the real program.
async fn only_child(wrapper: u32) -> u32 {
    loop {
        let children = fs::read_to_string(format!("/proc/{wrapper}/task/{wrapper}/children")).unwrap_or_default();
        if let Some(Ok(child)) = children.split_whitespace().next().map(str::parse) {
            return child;
        }
        sleep(LOOK / 10).await;
    }
}

/// Ends a program: politely, then not. The first process of a host hears nothing but KILL.
async fn end(run: &Run, program: &Program, mut child: Child) {
    let pid = fs::read_to_string(run.pid_file(&program.name)).ok().and_then(|pid| pid.parse().ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let signal = match program.kind {
            Kind::Plain => rustix::process::Signal::TERM,
            Kind::HostInit => rustix::process::Signal::KILL,
        };
        let _ = rustix::process::kill_process(pid, signal);
    }
    if timeout(TERM, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    let _ = fs::remove_file(run.pid_file(&program.name));
}

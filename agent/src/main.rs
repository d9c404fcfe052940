//! The agent: brings one host's libvirtd to what Kubernetes says, and reports back.

mod args;
mod chains;
mod context;
mod files;
mod guest;
mod heartbeat;
mod host;
mod identity;
mod import;
mod jobs;
mod lanes;
mod libvirt_events;
mod marks;
mod pool_directory;
mod snapshot;
mod storage_pool;
mod storage_volume;
mod stores;
mod virtual_machine;

use args::Args;
use clap::Parser;
use libvirt::{Libvirt, Link, Settings};
use shell::metrics::Metrics;
use shell::{client, health, logs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What probes are told.
struct Health {
    libvirt: Libvirt,
    working: AtomicBool,
    listed: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl health::Probe for Health {
    fn ready(&self) -> Result<(), String> {
        if !self.working.load(Ordering::Relaxed) {
            return Err("waiting for the API server".into());
        }
        match &*self.libvirt.link().borrow() {
            Link::Down(why) => Err(format!("libvirt: {why}")),
            Link::Up if !self.listed.load(Ordering::Relaxed) => Err("listing what is on the host".into()),
            Link::Up => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.text(&self.libvirt.calls())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    logs::start(args.log_format);
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtfleet-agent: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let stopped = shell::asked_to_stop()?;
    let (libvirt, events) = Libvirt::start(Settings::new(&args.libvirt_uri))?;
    let health = Arc::new(Health {
        libvirt: libvirt.clone(),
        working: AtomicBool::new(false),
        listed: Arc::default(),
        metrics: Arc::new(Metrics::default()),
    });
    health::serve(args.listen, health.clone()).await?;
    tokio::spawn(tell_link(libvirt.clone(), args.libvirt_uri.clone()));
    let work = async {
        let client = identity::connect(&args).await?;
        let cluster = client::cluster(&client).await;
        health.working.store(true, Ordering::Relaxed);
        let listed = health.listed.clone();
        let seed = stores::Seed::new(client, cluster, libvirt, args, health.metrics.clone(), listed);
        stores::run(seed, events).await;
        Err("the watches ended".into())
    };
    tokio::select! {
        ended = work => ended,
        () = stopped => Ok(()),
    }
}

/// Says when libvirt comes and goes, and why.
async fn tell_link(libvirt: Libvirt, uri: String) {
    let mut link = libvirt.link();
    let mut told = None;
    loop {
        let now = link.borrow_and_update().clone();
        if told.as_ref() != Some(&now) {
            match &now {
                Link::Up => tracing::info!("connected to libvirt at {uri}"),
                Link::Down(why) => tracing::warn!("waiting for libvirt at {uri}: {why}"),
            }
            told = Some(now);
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

//! The controller: places machines, binds volumes, sums up pools, decides teardowns. It never calls an agent.

mod args;
mod check;
mod context;
mod election;
mod finalizer;
mod heartbeat;
mod host;
mod host_kubeconfig;
mod import_secret;
mod node;
mod room;
mod snapshot;
mod storage_pool;
mod storage_volume;
mod stores;
mod teardown;
mod virtual_machine;

use args::{Args, Command};
use clap::Parser;
use shell::history::History;
use shell::metrics::Metrics;
use shell::{client, health, logs};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What probes are told.
struct Health {
    reached: AtomicBool,
    metrics: Arc<Metrics>,
}

impl health::Probe for Health {
    fn ready(&self) -> Result<(), String> {
        // A controller that waits for its turn is ready for it; only one that has not reached the API server is not.
        self.reached.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "waiting for the API server".into())
    }

    fn metrics(&self) -> String {
        self.metrics.text(&BTreeMap::new())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    logs::start(args.log_format);
    let end = match args.command.clone() {
        None => run(args).await,
        Some(command) => answer(&args, command).await,
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtfleet-controller: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn answer(args: &Args, command: Command) -> Result<(), Box<dyn std::error::Error>> {
    let kubeconfig = args.kubeconfig.as_deref();
    let client = client::of(client::config(kubeconfig).await?)?;
    let text = match command {
        Command::HostKubeconfig { name, server } => {
            host_kubeconfig::text(&client, kubeconfig, &name, server.as_deref()).await?
        }
        Command::Check => check::check(&client, &args.namespace).await?,
    };
    println!("{text}");
    Ok(())
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let stopped = shell::asked_to_stop()?;
    let client = client::of(client::config(args.kubeconfig.as_deref()).await?)?;
    let health = Arc::new(Health { reached: AtomicBool::new(false), metrics: Arc::new(Metrics::default()) });
    health::serve(args.listen, health.clone()).await?;
    let work = async {
        client::cluster(&client).await;
        health.reached.store(true, Ordering::Relaxed);
        let election = election::Election::new(&client, &args);
        let term = election.win().await;
        let history = History::default();
        let seed = stores::Seed::new(client.clone(), &args, health.metrics.clone(), history.clone());
        tokio::select! {
            () = election.keep(term, &history) => Err("another controller leads; starting anew"),
            () = stores::run(seed) => Err("the watches ended"),
        }
    };
    tokio::select! {
        end = work => end.map_err(Into::into),
        () = stopped => Ok(()),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

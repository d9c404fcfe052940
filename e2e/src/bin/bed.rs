//! `bed`: brings the bed up and down. The Makefile builds what it runs.

use clap::{Parser, Subcommand};
use e2e::run::{Parts, Run};
use e2e::{Result, demo, down, images, keeper, up};
use std::path::PathBuf;

/// A Kubernetes control plane and two libvirt hosts on this machine.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start it, unless it runs.
    Up {
        /// Folder that remembers it.
        #[arg(long, default_value = ".dev")]
        dir: PathBuf,
        /// Folder of kube-apiserver, etcd, kubectl and helm.
        #[arg(long)]
        cluster: PathBuf,
        /// Folder of the test guest.
        #[arg(long)]
        guest: PathBuf,
        /// Makes the first host a node of the cluster and gives it the container images of this folder; nothing is installed then.
        #[arg(long)]
        node: Option<PathBuf>,
    },
    /// Show in it what a user does.
    Demo {
        /// Folder that remembers it.
        #[arg(long, default_value = ".dev")]
        dir: PathBuf,
    },
    /// End it.
    Down {
        /// Folder that remembers it.
        #[arg(long, default_value = ".dev")]
        dir: PathBuf,
    },
    /// The daemon itself; `up` starts it.
    #[command(hide = true)]
    Keep {
        /// The run's folder.
        dir: PathBuf,
    },
    /// The server of images; `keep` starts it.
    #[command(hide = true)]
    Serve {
        /// The run's folder.
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Verb::Up { dir, cluster, guest, node } => {
            let checkout = std::env::current_dir()?;
            std::fs::create_dir_all(&dir)?;
            up::up(&dir.canonicalize()?, Parts { checkout, cluster, guest, node })
        }
        Verb::Demo { dir } => demo::demo(&dir),
        Verb::Down { dir } => down::down(&dir.canonicalize().unwrap_or(dir)),
        Verb::Keep { dir } => keeper::keep(Run::load(&dir)?),
        Verb::Serve { dir } => images::serve(&Run::load(&dir)?),
    }
}

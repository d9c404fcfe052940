//! The controller's command line. Flags and environment are read here and in `main` alone.

use clap::{Parser, Subcommand};
use shell::logs::Format;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Places VirtualMachines on Hosts, sums up, and decides how what is deleted goes.
#[derive(Clone, Debug, Parser)]
#[command(name = "virtfleet-controller", version)]
pub struct Args {
    /// File with the address of the API server and a token. Without it: the usual places.
    #[arg(long, env = "VIRTFLEET_KUBECONFIG", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the election's Lease.
    #[arg(long, env = "VIRTFLEET_NAMESPACE", default_value = "virtfleet-system", global = true)]
    pub namespace: String,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "VIRTFLEET_LISTEN", default_value = "127.0.0.1:9190")]
    pub listen: SocketAddr,
    /// Seconds after which another controller may take over from one that is silent.
    #[arg(long, env = "VIRTFLEET_LEASE_DURATION_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..))]
    pub lease_duration_seconds: u32,
    /// Seconds after which a host whose Lease does not change is lost.
    #[arg(long, env = "VIRTFLEET_HOST_LEASE_SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(3..))]
    pub host_lease_seconds: u32,
    /// How logs look.
    #[arg(long, env = "VIRTFLEET_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Instead of being the controller.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What an administrator asks of this binary.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Prints the kubeconfig for the agent of a host outside the cluster, with a token that the agent renews by itself. Needs an
    /// administrator's kubeconfig and a Host of that name.
    HostKubeconfig {
        /// Name of the Host.
        name: String,
        /// The API server's address as that host reaches it: https://… Without it: the kubeconfig's.
        #[arg(long)]
        server: Option<String>,
    },
    /// Looks whether a controller leads and all Hosts are ready, for a minute at most, and says what is wrong.
    Check,
}

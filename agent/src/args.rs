//! The agent's command line. Flags and environment are read here and in `main` alone.

use clap::Parser;
use ipnet::IpNet;
use shell::logs::Format;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Brings the libvirtd of one host to what Kubernetes says and reports back.
#[derive(Clone, Debug, Parser)]
#[command(name = "virtfleet-agent", version)]
pub struct Args {
    /// Name of the Host object that this agent stands for.
    #[arg(long, env = "VIRTFLEET_HOST")]
    pub host: String,
    /// File with the address of the API server and the token of the host's own ServiceAccount. Without it: the usual places.
    #[arg(long, env = "VIRTFLEET_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// File in which the agent keeps the token of its host's account and renews it in time. In a pod the pod's account asks for it; else
    /// the host's own, beginning with the kubeconfig's. Without it the way to the API server is used as it is.
    #[arg(long, env = "VIRTFLEET_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// libvirt's address.
    #[arg(long, env = "VIRTFLEET_LIBVIRT_URI", default_value = "qemu:///system")]
    pub libvirt_uri: String,
    /// A directory below which StoragePools may lie; may be given more than once. Without any, no pool is made.
    #[arg(long = "pool-root", env = "VIRTFLEET_POOL_ROOT", value_delimiter = ',')]
    pub pool_roots: Vec<PathBuf>,
    /// A network (`10.0.0.0/8`) or address that images may come from although it is private; may be given more than once.
    #[arg(long = "import-allow", env = "VIRTFLEET_IMPORT_ALLOW", value_delimiter = ',', value_parser = network)]
    pub import_allow: Vec<IpNet>,
    /// Run every guest by emulation, whatever its manifest says.
    #[arg(long, env = "VIRTFLEET_FORCE_EMULATION")]
    pub force_emulation: bool,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "VIRTFLEET_LISTEN", default_value = "127.0.0.1:9180")]
    pub listen: SocketAddr,
    /// How logs look.
    #[arg(long, env = "VIRTFLEET_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Directory of the guests' console logs, written by virtlogd.
    #[arg(long, env = "VIRTFLEET_CONSOLE_LOG_DIR", default_value = "/var/log/libvirt/virtfleet")]
    pub console_log_dir: PathBuf,
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "neither a network such as 10.0.0.0/8 nor an address".into())
}

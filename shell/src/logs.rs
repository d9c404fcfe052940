//! Logs to standard error: for people, or one JSON object a line.

use tracing_subscriber::EnvFilter;

/// How logs look.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `RUST_LOG` chooses what is logged; by default our own words at `info` and others' at `warn`.
pub fn start(format: Format) {
    let ours = "warn,virtfleet_agent=info,virtfleet_controller=info,shell=info,libvirt=info";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => logs.with_ansi(false).with_target(false).init(),
        Format::Json => logs.json().init(),
    }
}

//! A program that runs as long as the bed.

use std::path::PathBuf;

/// A program that the keeper starts, and starts again when it ends.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name of its pid, hold and log files.
    pub name: String,
    /// What to run.
    pub argv: Vec<String>,
    /// Host in whose namespaces it runs.
    pub host: Option<String>,
    /// Files that must be there before it is started.
    pub needs: Vec<PathBuf>,
    /// What it is to the keeper.
    pub kind: Kind,
}

/// What a program is to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process.
    Plain,
    /// The first process of a host's namespaces: all of the host ends with it.
    HostInit,
}

impl Program {
    /// A process outside the hosts.
    pub fn plain(name: &str, argv: Vec<String>) -> Program {
        Program { name: name.into(), argv, host: None, needs: Vec::new(), kind: Kind::Plain }
    }

    /// A process of a host.
    pub fn on(host: &str, name: &str, argv: Vec<String>) -> Program {
        Program { host: Some(host.into()), ..Program::plain(&format!("{name}-{host}"), argv) }
    }

    /// The same, once these files are there.
    pub fn after(self, needs: impl IntoIterator<Item = PathBuf>) -> Program {
        Program { needs: needs.into_iter().collect(), ..self }
    }
}

/// Name of a host's first process.
pub fn init_of(host: &str) -> String {
    format!("init-{host}")
}

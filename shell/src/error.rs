//! What goes wrong in a pass over one object, by what is done about it.

use crate::retry::Case;

/// A pass that failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{act}: {}", told(.source))]
    Api {
        /// What was asked of it.
        act: &'static str,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Anything else that may pass.
    #[error("{act}: {message}")]
    Passing {
        /// What was tried.
        act: &'static str,
        /// What came of it.
        message: String,
    },
}

impl Error {
    /// Wraps an answer of the API server.
    pub fn api(act: &'static str) -> impl Fn(kube::Error) -> Error {
        move |source| Error::Api { act, source: Box::new(source) }
    }

    /// What is done about it.
    pub fn retry(&self) -> Case {
        match self {
            Error::Api { source, .. } if is_code(source, 409) => Case::Conflict,
            Error::Api { source, .. } if is_no_answer(source) => Case::Away,
            Error::Api { .. } | Error::Passing { .. } => Case::Transient,
        }
    }
}

/// Whether the API server answered with this code.
pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Whether there was no whole answer: nobody listened, or the connection broke.
fn is_no_answer(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_))
}

/// The server's sentence without the status around it.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

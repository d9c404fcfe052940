//! What goes wrong with libvirt, by what the caller can do about it.

use virt::error::{Error as VirtError, ErrorNumber};

/// A call that failed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{act}: {message}")]
pub struct Error {
    /// Which call.
    pub act: &'static str,
    /// What can be done about it.
    pub kind: Kind,
    /// libvirt's own words.
    pub message: String,
}

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The thing is not there.
    NotFound,
    /// Something of that name or UUID is there already.
    Exists,
    /// libvirt does not answer; the connection is being reopened.
    Gone,
    /// It took too long; the call may still take effect.
    TimedOut,
    /// Something else works on it; try again.
    Busy,
    /// This libvirt or driver cannot do it.
    Unsupported,
    /// What was asked for is not valid.
    Invalid,
    /// libvirt does not let us.
    Denied,
    /// Its state does not allow it.
    WrongState,
    /// Anything else.
    Other,
}

impl Error {
    pub(crate) fn new(act: &'static str, kind: Kind, message: impl Into<String>) -> Error {
        Error { act, kind, message: message.into() }
    }

    pub(crate) fn of(act: &'static str, error: &VirtError) -> Error {
        // libvirt's messages may have many lines (QEMU's output); one is enough for a condition.
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        Error { act, kind: kind(error, &message), message }
    }
}

fn kind(error: &VirtError, message: &str) -> Kind {
    let virt::enumutil::Enum::Known(number) = error.code() else {
        return Kind::Other;
    };
    match number {
        ErrorNumber::NoDomain
        | ErrorNumber::NoStoragePool
        | ErrorNumber::NoStorageVolume
        | ErrorNumber::NoDomainSnapshot
        | ErrorNumber::NoDomainMetadata => Kind::NotFound,
        ErrorNumber::DomExist => Kind::Exists,
        ErrorNumber::NoConnect | ErrorNumber::Rpc | ErrorNumber::InvalidConn => Kind::Gone,
        ErrorNumber::OperationTimeout | ErrorNumber::AgentUnresponsive => Kind::TimedOut,
        ErrorNumber::ResourceBusy => Kind::Busy,
        ErrorNumber::NoSupport | ErrorNumber::OperationUnsupported | ErrorNumber::ArgumentUnsupported => {
            Kind::Unsupported
        }
        ErrorNumber::ConfigUnsupported
        | ErrorNumber::XmlError
        | ErrorNumber::XmlDetail
        | ErrorNumber::XmlInvalidSchema
        | ErrorNumber::InvalidArg => Kind::Invalid,
        ErrorNumber::AuthFailed
        | ErrorNumber::AuthCancelled
        | ErrorNumber::AccessDenied
        | ErrorNumber::OperationDenied => Kind::Denied,
        ErrorNumber::OperationInvalid => Kind::WrongState,
        ErrorNumber::OperationFailed if message.contains("already exists with uuid") => Kind::Exists,
        // A connection that broke during the call has no code of its own.
        ErrorNumber::SystemError | ErrorNumber::InternalError if broken(message) => Kind::Gone,
        _ => Kind::Other,
    }
}

/// libvirt's texts for a socket that closed (`src/rpc/virnetclient.c`, `virnetsocket.c`).
fn broken(message: &str) -> bool {
    [
        "client socket is closed",
        "Cannot recv data",
        "Cannot write data",
        "End of file while reading",
        "Failed to connect socket",
    ]
    .iter()
    .any(|text| message.contains(text))
}

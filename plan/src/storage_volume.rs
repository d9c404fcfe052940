//! What to do next for one StorageVolume's file on its host. Pure.
//!
//! A file is made as a hidden `.<uid>.part` and gets its name when it is whole, so that a file of that name is always a whole one:
//! whoever comes after a kill sees either nothing, a part to go on with or to throw away, or the volume.

pub mod binding;
pub mod image;
pub mod overlay;
pub mod secret;
pub mod status;

use crate::names;
use crds::storage_volume::{Allocation, Format, StorageVolume};
use crds::{TeardownPolicy, quantity};
use image::{Image, Unfit};
use jiff::Timestamp;

/// What the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The object's UID.
    pub uid: String,
    /// Name of the file in its pool.
    pub file: String,
    /// Format of the file.
    pub format: Format,
    /// Bytes that a guest sees; absent: the image's own size.
    pub capacity: Option<u64>,
    /// Whether all space is taken at once.
    pub full: bool,
    /// Where the contents come from; absent: blank.
    pub source: Option<Source>,
}

/// An image on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub url: String,
    /// Its SHA-256 in lower case hexadecimal; absent: unchecked.
    pub sha256: Option<String>,
    /// Name of the user's Secret with what the server demands.
    pub secret: Option<String>,
    /// PEM certificates that are trusted besides the host's.
    pub ca_bundle: Option<String>,
}

/// What the manifest asks for as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Be there.
    Exist(Desired),
    /// Go, in the way that the controller decided.
    Vanish {
        /// What becomes of the file.
        policy: TeardownPolicy,
        /// UID of the object that goes.
        uid: String,
    },
}

/// What is on the host: one look, one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The volume's file.
    pub file: File,
    /// Whether there is a part.
    pub part: bool,
    /// The import.
    pub job: Job,
    /// Who names the file; looked up only when it is to grow or to go.
    pub users: Vec<User>,
    /// Files of earlier volumes of this name, whose objects are gone.
    pub left_over: Vec<String>,
    /// Files over the volume's own that snapshots made, those that lie over others first; looked up only when it is to go.
    pub overlays: Vec<String>,
}

/// A domain that names a volume's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Its name.
    pub domain: String,
    /// How it uses the file.
    pub how: How,
}

/// How a domain uses a volume's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// As a disk of a guest that runs, with our mark.
    Runs {
        /// The domain's UUID.
        uuid: String,
        /// The disk's target.
        target: String,
    },
    /// As a disk of a guest that runs and is not ours.
    RunsForeign,
    /// As a disk of a guest that is off, or as its kernel.
    Off,
    /// Below an overlay of a snapshot.
    BelowOverlay,
    /// As a disk of a machine that another host may run.
    Elsewhere,
    /// Nobody can tell: libvirt does not answer for this domain.
    Unknown,
}

/// A volume's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// It was never there.
    Absent,
    /// It was there once.
    Lost {
        /// Where.
        path: String,
    },
    /// It is there.
    There {
        /// Where.
        path: String,
        /// What is in it, or why it cannot be used.
        image: Result<Image, Unfit>,
        /// Bytes that it takes in the file system.
        allocation: u64,
    },
}

/// An import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// None was started by this process.
    None,
    /// It runs.
    Running {
        /// Bytes received.
        received: u64,
        /// Bytes in all, when the server told.
        total: Option<u64>,
    },
    /// It failed.
    Failed {
        /// CamelCase word.
        reason: &'static str,
        /// What happened.
        message: String,
        /// When it may be tried again.
        again: Timestamp,
    },
}

/// One effect on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a blank file.
    Create(Desired),
    /// Make the file larger.
    Grow(Growth),
    /// Begin or go on with an import.
    Import(Desired, Source),
    /// End an import.
    Cancel,
    /// Remove the part.
    Discard,
    /// Remove the file.
    Unlink {
        /// Which.
        path: String,
    },
}

/// A file that is to be larger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Which.
    pub path: String,
    /// Its format.
    pub format: Format,
    /// Bytes that a guest shall see.
    pub capacity: u64,
    /// Whether the new space is taken at once.
    pub full: bool,
    /// UUID of the domain and target of the disk through which a running guest has it open.
    pub live: Option<(String, String)>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is left to do.
    Done,
    /// This, then look again.
    Do(Step),
    /// Wait.
    Wait {
        /// When to look again at the latest; absent: when something happens.
        until: Option<Timestamp>,
        /// What for.
        why: Why,
    },
    /// Nothing, until somebody changes something.
    Refuse {
        /// CamelCase word.
        reason: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The import.
    Import,
    /// The next try of an import that failed.
    Retry {
        /// CamelCase word.
        reason: &'static str,
        /// What happened.
        message: String,
    },
    /// Domains that name the file.
    Named(Vec<String>),
    /// Somebody through whom or around whom the file cannot be grown.
    Held {
        /// CamelCase word.
        reason: &'static str,
        /// Who, and what to do.
        message: String,
    },
}

/// Reads the manifest.
///
/// # Errors
/// The field and what is wrong with it.
pub fn validate(volume: &StorageVolume) -> Result<Desired, (&'static str, String)> {
    let metadata = &volume.metadata;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name, uid) = (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
    if ![&namespace, &name].into_iter().all(|part| names::is_label(part)) || uid.contains(['/', '.']) {
        return Err(("InvalidName", format!("{namespace}/{name} cannot be part of a file's name")));
    }
    let capacity = match &volume.spec.capacity {
        None => None,
        Some(size) => Some(quantity::units(size).filter(|bytes| *bytes > 0).ok_or_else(|| {
            ("InvalidQuantity", format!("spec.capacity: {:?} is not a size; write it as 512Mi or 10Gi", size.0))
        })?),
    };
    let http = volume.spec.source.as_ref().map(|source| &source.http);
    if http.is_some_and(|http| http.secret.is_some() && !http.url.starts_with("https://")) {
        let message = "spec.source.http: a secret needs a url that begins with https://: it never travels in clear";
        return Err(("InvalidSource", message.into()));
    }
    let sha256 = |text: &String| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    Ok(Desired {
        file: names::volume_file(&namespace, &name, &uid, volume.spec.format),
        uid,
        format: volume.spec.format,
        // QEMU counts in sectors.
        capacity: capacity.map(|bytes| bytes.div_ceil(512) * 512),
        full: match volume.spec.allocation {
            Allocation::Thin => false,
            Allocation::Full => true,
        },
        source: http.map(|http| Source {
            url: http.url.clone(),
            sha256: http.checksum.as_ref().map(sha256),
            secret: http.secret.clone(),
            ca_bundle: http.ca_bundle.clone(),
        }),
    })
}

/// The smallest change that brings the host closer to `goal`.
pub fn next(goal: &Goal, seen: &Observed, now: Timestamp) -> Next {
    match goal {
        Goal::Exist(want) => exist(want, seen, now),
        Goal::Vanish { policy, uid: _ } => vanish(*policy, seen),
    }
}

fn exist(want: &Desired, seen: &Observed, now: Timestamp) -> Next {
    match (&seen.file, &want.source, &seen.job) {
        (File::There { image: Ok(image), path, .. }, _, _) if image.format == want.format => match want.capacity {
            Some(capacity) if capacity > image.capacity => grow(want, path, capacity, seen),
            // A volume that was grown by other hands, or under an earlier object of its name, is never cut.
            Some(_) | None => Next::Done,
        },
        (File::There { image: Ok(image), path, .. }, _, _) => Next::Refuse {
            reason: "WrongFormat",
            message: format!("{path} is {}, spec.format says {}", image.format.as_str(), want.format.as_str()),
        },
        (File::There { image: Err(unfit), path, .. }, _, _) => {
            Next::Refuse { reason: unfit.reason, message: format!("{path}: {}", unfit.message) }
        }
        // Making it anew would hide that data is gone.
        (File::Lost { path }, _, _) => Next::Refuse {
            reason: "Lost",
            message: format!(
                "{path} is gone, or its pool lies elsewhere now; put it back, or delete this volume and make another"
            ),
        },
        (File::Absent, None, _) if seen.part => Next::Do(Step::Discard),
        (File::Absent, None, _) => Next::Do(Step::Create(want.clone())),
        (File::Absent, Some(source), Job::None) => Next::Do(Step::Import(want.clone(), source.clone())),
        (File::Absent, Some(_), Job::Running { .. }) => Next::Wait { until: None, why: Why::Import },
        (File::Absent, Some(source), Job::Failed { again, .. }) if now >= *again => {
            Next::Do(Step::Import(want.clone(), source.clone()))
        }
        (File::Absent, Some(_), Job::Failed { reason, message, again }) => {
            Next::Wait { until: Some(*again), why: Why::Retry { reason, message: message.clone() } }
        }
    }
}

fn grow(want: &Desired, path: &str, capacity: u64, seen: &Observed) -> Next {
    let mut live = None;
    if !seen.overlays.is_empty() {
        let message = "snapshots of a machine lie on it; delete them first".to_owned();
        return Next::Wait { until: None, why: Why::Held { reason: "SnapshotsExist", message } };
    }
    for User { domain, how } in &seen.users {
        let (reason, message) = match how {
            How::Off => continue,
            How::Runs { uuid, target } => {
                live = Some((uuid.clone(), target.clone()));
                continue;
            }
            How::RunsForeign => {
                ("InUse", format!("domain {domain}, which is not Virtfleet's, runs with it; stop it first"))
            }
            How::BelowOverlay => ("SnapshotsExist", format!("snapshots of {domain} lie on it; delete them first")),
            How::Elsewhere => ("InUse", format!("{domain} may run with it on another host; stop it there first")),
            How::Unknown => ("InUse", format!("libvirt does not answer for domain {domain}, which may have it")),
        };
        return Next::Wait { until: None, why: Why::Held { reason, message } };
    }
    let (path, format, full) = (path.to_owned(), want.format, want.full);
    Next::Do(Step::Grow(Growth { path, format, capacity, full, live }))
}

fn vanish(policy: TeardownPolicy, seen: &Observed) -> Next {
    if policy == TeardownPolicy::Keep {
        return Next::Done;
    }
    if matches!(seen.job, Job::Running { .. }) {
        return Next::Do(Step::Cancel);
    }
    // A part is no data of anybody's.
    if seen.part {
        return Next::Do(Step::Discard);
    }
    match (policy, &seen.file) {
        // The volume's own last: it is what the others are known by.
        (TeardownPolicy::Delete, File::There { path, .. }) if seen.users.is_empty() => {
            Next::Do(Step::Unlink { path: seen.overlays.first().unwrap_or(path).clone() })
        }
        (TeardownPolicy::Delete, File::There { .. }) => {
            let silent =
                |how: &How| if *how == How::Unknown { " (or may: libvirt does not answer for it)" } else { "" };
            let mut domains: Vec<_> =
                seen.users.iter().map(|user| format!("{}{}", user.domain, silent(&user.how))).collect();
            domains.dedup();
            Next::Wait { until: None, why: Why::Named(domains) }
        }
        (TeardownPolicy::Delete, File::Absent | File::Lost { .. })
        | (TeardownPolicy::Retain | TeardownPolicy::Orphan | TeardownPolicy::Keep, _) => Next::Done,
    }
}

#[cfg(test)]
mod tests;

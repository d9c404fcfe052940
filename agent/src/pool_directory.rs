//! A pool's directory: made below an allowed root and marked with a hidden file, so that what lies in its place while its file system is
//! not mounted is not taken for it. Blocking; no policy beyond that.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Name of the mark. Volumes' files begin with a letter or digit, parts with a UID.
const MARK: &str = ".virtfleet-pool";

/// Why a pool is not ready here.
#[derive(Debug)]
pub struct Trouble {
    /// CamelCase word.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Trouble {
    /// With a CamelCase word and a sentence.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Trouble {
        Trouble { reason, message: message.into() }
    }
}

/// Whether the directory is the one that was once made or taken for a pool.
pub fn is_marked(path: &Path) -> bool {
    path.join(MARK).exists()
}

/// Sees to the directory. `known`: it was marked here before, so one without the mark is another one, and is not used.
///
/// # Errors
/// Why it cannot be the pool's.
pub fn ensure(roots: &[PathBuf], path: &Path, known: bool) -> Result<(), Trouble> {
    allowed(roots, path)?;
    let broken = |error: io::Error| Trouble::new("DirectoryFailed", format!("{}: {error}", path.display()));
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(Trouble::new("NotADirectory", format!("{} is a file", path.display())));
        }
        Ok(_) | Err(_) if known && !is_marked(path) => {
            let words = format!(
                "{path} is not the directory that held this pool: is its file system mounted? Nothing is made in it. If the data is gone \
                 for good, make an empty file {path}/{MARK} to begin anew",
                path = path.display()
            );
            return Err(Trouble::new("DirectoryLost", words));
        }
        Ok(_) => {}
        // QEMU's own user must pass through; nobody else may list.
        Err(_) => DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(broken)?,
    }
    if is_marked(path) {
        return Ok(());
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(MARK)).map(drop).map_err(broken)
}

/// Below an allowed root, also after links were followed.
fn allowed(roots: &[PathBuf], path: &Path) -> Result<(), Trouble> {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    let Some(root) = roots.iter().find(|root| path.starts_with(root) && path != root.as_path() && !climbs) else {
        let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        let words = format!(
            "{} is not below a directory that this host's agent allows ({}); the administrator sets --pool-root",
            path.display(),
            if roots.is_empty() { "none".into() } else { roots.join(", ") }
        );
        return Err(Trouble::new("PathNotAllowed", words));
    };
    let real = |path: &Path| {
        path.canonicalize().map_err(|error| Trouble::new("DirectoryFailed", format!("{}: {error}", path.display())))
    };
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(root);
    if !real(existing)?.starts_with(real(root)?) {
        let words = format!("{} leads out of {}", path.display(), root.display());
        return Err(Trouble::new("PathNotAllowed", words));
    }
    Ok(())
}

/// Removes the directory if it is a pool's below an allowed root and holds nothing but the mark: what else is in it is somebody's.
///
/// # Errors
/// The file system's.
pub fn remove_empty(roots: &[PathBuf], path: &Path) -> io::Result<()> {
    if allowed(roots, path).is_err() || !is_marked(path) {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        if entry?.file_name() != MARK {
            return Ok(());
        }
    }
    fs::remove_file(path.join(MARK))?;
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn reason(result: Result<(), Trouble>) -> &'static str {
        result.unwrap_err().reason
    }

    #[test]
    fn a_directory_that_is_gone_or_another_is_not_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let (roots, path) = ([root.path().to_owned()], root.path().join("pool"));
        ensure(&roots, &path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);
        ensure(&roots, &path, true).unwrap();
        // As when its file system is not mounted.
        fs::rename(&path, root.path().join("away")).unwrap();
        assert_eq!(reason(ensure(&roots, &path, true)), "DirectoryLost");
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        assert_eq!(reason(ensure(&roots, &path, true)), "DirectoryLost");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn nothing_outside_the_roots_is_made_or_removed() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let roots = [root.path().to_owned()];
        symlink(other.path(), root.path().join("link")).unwrap();
        let outside = root.path().join("x/../..").join(other.path().file_name().unwrap()).join("made");
        for path in [other.path(), root.path(), &root.path().join("link"), &root.path().join("link/made"), &outside] {
            assert_eq!(reason(ensure(&roots, path, false)), "PathNotAllowed", "{}", path.display());
            fs::write(other.path().join(MARK), "").unwrap();
            remove_empty(&roots, path).unwrap();
            assert!(other.path().join(MARK).exists() && !other.path().join("made").exists());
            fs::remove_file(other.path().join(MARK)).unwrap();
        }
    }

    #[test]
    fn a_directory_goes_only_when_it_was_a_pools_and_nothing_is_left_in_it() {
        let root = tempfile::tempdir().unwrap();
        let (roots, path) = ([root.path().to_owned()], root.path().join("pool"));
        fs::create_dir(&path).unwrap();
        remove_empty(&roots, &path).unwrap();
        assert!(path.exists(), "nobody made it a pool");
        ensure(&roots, &path, false).unwrap();
        fs::write(path.join("data"), "").unwrap();
        remove_empty(&roots, &path).unwrap();
        ensure(&roots, &path, true).unwrap();
        fs::remove_file(path.join("data")).unwrap();
        remove_empty(&roots, &path).unwrap();
        assert!(!path.exists());
    }
}

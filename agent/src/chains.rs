//! Files that lie over others: which, and whether anything was ever written into them. A raw file is a guest's and says nothing of a
//! file below. Blocking; no policy.

use crds::storage_volume::Format;
use plan::names;
use plan::storage_volume::overlay::{self, BEGINNING};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// QEMU follows no longer chains either (libvirt refuses more than 200).
const LONGEST: usize = 200;
/// A table of this length belongs to a disk of 64 TiB.
const LARGEST_TABLE: u64 = 1 << 20;

/// The files below a qcow2 file, nearest first, as far as they are there and say so.
///
/// # Errors
/// The file system's: what cannot be read may lie over others all the same.
pub fn below(path: &str) -> io::Result<Vec<String>> {
    let mut chain = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next.take() {
        let Some((file, format)) = under(&path)? else { break };
        if chain.len() == LONGEST || chain.contains(&file) {
            break;
        }
        chain.push(file.clone());
        next = (format == Some(Format::Qcow2)).then_some(file);
    }
    Ok(chain)
}

/// The file right below a qcow2 file, with its format where that is told.
///
/// # Errors
/// The file system's.
pub fn under(path: &str) -> io::Result<Option<(String, Option<Format>)>> {
    let Some(below) = beginning(Path::new(path))?.as_deref().and_then(overlay::below) else { return Ok(None) };
    // A name without directory is meant beside the file that says it.
    let file = match (below.path.starts_with('/'), Path::new(path).parent()) {
        (false, Some(dir)) => dir.join(&below.path).display().to_string(),
        (true, _) | (false, None) => below.path,
    };
    Ok(Some((file, below.format)))
}

/// [`below`] for each of them that lies over another and can be read.
pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, Format)>) -> BTreeMap<String, Vec<String>> {
    let qcow2 = files.into_iter().filter(|(_, format)| *format == Format::Qcow2);
    qcow2
        .map(|(file, _)| (file.to_owned(), below(file).unwrap_or_default()))
        .filter(|(_, below)| !below.is_empty())
        .collect()
}

/// A file over a volume's own.
pub struct Overlay {
    /// Its path.
    pub path: String,
    /// The files below it, nearest first.
    pub below: Vec<String>,
}

/// The files over a volume's own in its directory, those that lie over others first.
///
/// # Errors
/// The file system's.
pub fn over(base: &Path) -> io::Result<Vec<Overlay>> {
    let (Some(dir), Some(file)) = (base.parent(), base.file_name()) else { return Ok(Vec::new()) };
    let file = file.to_string_lossy();
    let (Some(stem), shown) = (names::stem(&file), base.display().to_string()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == file || names::stem(&name) != Some(stem) {
            continue;
        }
        let path = dir.join(name).display().to_string();
        let below = below(&path)?;
        if below.contains(&shown) {
            found.push(Overlay { path, below });
        }
    }
    found.sort_by(|a, b| (b.below.len(), &a.path).cmp(&(a.below.len(), &b.path)));
    Ok(found)
}

/// The files over a volume's own that something was written into and over which no other such lies: where a guest would go on. More than
/// one when its snapshots branch.
///
/// # Errors
/// The file system's.
pub fn ends(base: &Path) -> io::Result<Vec<String>> {
    let mut written = over(base)?;
    let mut failed = None;
    written.retain(|overlay| {
        !is_blank(Path::new(&overlay.path)).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let is_end = |overlay: &&Overlay| !written.iter().any(|other| other.below.contains(&overlay.path));
    Ok(written.iter().filter(is_end).map(|overlay| overlay.path.clone()).collect())
}

/// Bytes that a guest sees of a file; absent when it is not there or cannot be read.
pub fn capacity(path: &Path, format: Format) -> Option<u64> {
    match format {
        Format::Raw => fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.size()),
        Format::Qcow2 => overlay::capacity(&beginning(path).ok()??),
    }
}

/// Whether nobody here can look into a file: it is not there for us, or cannot be read.
pub fn is_hidden(path: &str) -> bool {
    !path.is_empty() && (fs::metadata(path).is_err() || beginning(Path::new(path)).is_err())
}

/// Whether nothing was ever written into a file that lies over `below`, which has that format and as many bytes.
///
/// # Errors
/// The file system's.
pub fn is_blank(path: &Path) -> io::Result<bool> {
    let Some(table) = beginning(path)?.as_deref().and_then(overlay::table) else { return Ok(false) };
    if table.length > LARGEST_TABLE {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(table.length).unwrap_or_default()];
    match open(path)?.read_exact_at(&mut bytes, table.at) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(bytes.iter().all(|byte| *byte == 0)),
    }
}

/// A file's first bytes; `None` when there is no regular file.
fn beginning(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    open(path)?.take(BEGINNING as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Without waiting for a writer, should it have become a pipe meanwhile.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    fn qemu(program: &str, words: &[&str]) {
        assert!(Command::new(program).args(words).output().unwrap().status.success(), "{words:?}");
    }

    #[test]
    fn a_chain_ends_at_a_raw_file_whatever_its_guest_wrote_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (secret, base, one, two) = (path("secret"), path("base"), path("one"), path("two"));
        qemu("qemu-img", &["create", "-q", "-f", "raw", &secret, "1M"]);
        // What a guest can write onto its raw disk.
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &secret, &base]);
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &one, "1M"]);
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "one", &two, "1M"]);
        assert_eq!(below(&two).unwrap(), [one.clone(), base.clone()]);
        assert_eq!(of([(base.as_str(), Format::Raw), (one.as_str(), Format::Qcow2)]), [(one, vec![base])].into());
        assert_eq!(capacity(Path::new(&two), Format::Qcow2), Some(1 << 20));
        assert!(below(&path("nothing")).unwrap().is_empty());
        assert_eq!([path("nothing"), String::new(), two].map(|file| is_hidden(&file)), [true, false, false]);
    }

    #[test]
    fn a_volume_ends_where_something_was_last_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("shop.v-0a1b2c3d.{name}")).display().to_string();
        let (base, one, two, three) = (path("raw"), path("one"), path("two"), path("three"));
        qemu("qemu-img", &["create", "-q", "-f", "raw", &base, "1M"]);
        // Somebody's copy, and another volume's file: neither lies over this one.
        fs::copy(&base, path("copy")).unwrap();
        fs::copy(&base, dir.path().join("shop.v-0a1b2c3d-0a1b2c3d.raw")).unwrap();
        for (file, format, below) in [(&one, "raw", &base), (&two, "qcow2", &one), (&three, "qcow2", &one)] {
            qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-F", format, "-b", below, file]);
        }
        let all: Vec<_> = over(Path::new(&base)).unwrap().into_iter().map(|overlay| overlay.path).collect();
        assert_eq!(all, [three.clone(), two.clone(), one.clone()]);
        let ends = || ends(Path::new(&base)).unwrap();
        assert!(ends().is_empty(), "nothing was written");
        for (file, expected) in [(&one, vec![&one]), (&two, vec![&two]), (&three, vec![&three, &two])] {
            qemu("qemu-io", &["-f", "qcow2", "-c", "write 0 512", file]);
            assert_eq!(ends().iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn an_overlay_that_cannot_be_read_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("shop.v-0a1b2c3d.{name}"));
        fs::write(path("raw"), "").unwrap();
        // Root may read everything; nobody can follow this.
        std::os::unix::fs::symlink(path("one"), path("one")).unwrap();
        assert!(below(&path("one").display().to_string()).is_err());
        assert!(ends(&path("raw")).is_err(), "a guest would be started on the file below");
        assert!(is_hidden(&path("one").display().to_string()));
    }

    #[test]
    fn an_overlay_is_blank_until_something_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (base, over) = (path("base"), path("over"));
        qemu("qemu-img", &["create", "-q", "-f", "raw", &base, "1M"]);
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &over]);
        assert!(is_blank(Path::new(&over)).unwrap());
        assert!(!is_blank(Path::new(&base)).unwrap() && !is_blank(Path::new(&path("nothing"))).unwrap());
        qemu("qemu-io", &["-f", "qcow2", "-c", "write 0 512", &over]);
        assert!(!is_blank(Path::new(&over)).unwrap());
    }
}

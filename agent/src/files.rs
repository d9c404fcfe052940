//! Volumes' files: made hidden and closed to everybody else, given their name when they are whole. Blocking; no policy.

use crate::import::Failure;
use crds::storage_volume::Format;
use plan::storage_volume::image::{self, HEADER, Image, Unfit};
use plan::storage_volume::{Desired, File as Seen};
use plan::{names, storage_volume};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The part of a volume.
pub fn part(dir: &Path, uid: &str) -> PathBuf {
    dir.join(names::part_file(uid))
}

/// What is known of a part.
pub fn sidecar(dir: &Path, uid: &str) -> PathBuf {
    dir.join(names::sidecar_file(uid))
}

/// Opens a part for writing; a new one is closed to others from its first instant.
///
/// # Errors
/// The file system's.
pub fn open_part(path: &Path, new: bool) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).custom_flags(flags).open(path)
}

/// What is nothing but zeros is not written in smaller pieces than this.
const HOLE: usize = 64 << 10;

/// Writes bytes where the file stands, and leaves holes for zeros; the file ends where the last byte that is none does.
///
/// # Errors
/// The file system's.
pub fn write_thinly(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    static ZEROS: [u8; HOLE] = [0; HOLE];
    for piece in bytes.chunks(HOLE) {
        if *piece == ZEROS[..piece.len()] {
            file.seek(SeekFrom::Current(piece.len() as i64))?;
        } else {
            file.write_all(piece)?;
        }
    }
    Ok(())
}

/// Removes a part with what is known of it.
///
/// # Errors
/// The file system's; that they are not there is none.
pub fn discard(dir: &Path, uid: &str) -> io::Result<()> {
    for path in [sidecar(dir, uid), part(dir, uid)] {
        absent_is_fine(fs::remove_file(path))?;
    }
    Ok(())
}

/// Removes a volume's file.
///
/// # Errors
/// The file system's; that it is not there is none.
pub fn unlink(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Looks at a file that should be a volume; its name says its format, never its contents, which are a guest's.
///
/// # Errors
/// The file system's.
pub fn look(path: &Path) -> io::Result<Option<Seen>> {
    let format = if path.extension().is_some_and(|kind| kind == "raw") { Format::Raw } else { Format::Qcow2 };
    let shown = path.display().to_string();
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !metadata.is_file() {
        let what = if metadata.file_type().is_symlink() || metadata.file_type().is_block_device() {
            "a link or device"
        } else {
            "no file"
        };
        let unfit = Unfit { reason: "NotAFile", message: format!("it is {what}") };
        return Ok(Some(Seen::There { path: shown, image: Err(unfit), allocation: 0 }));
    }
    let image = image::read(&header(path)?, metadata.len(), format);
    Ok(Some(Seen::There { path: shown, image, allocation: metadata.blocks() * 512 }))
}

/// Looks for a volume's file: where it is `known` to be, else at its `own` place. What was known and is not there, or not in the pool
/// (`is_in_pool`), is lost: a new one in its place would hide that.
///
/// # Errors
/// The file system's.
pub fn find(own: &Path, known: Option<PathBuf>, is_in_pool: impl Fn(&PathBuf) -> bool) -> io::Result<Seen> {
    let Some(known) = known else { return Ok(look(own)?.unwrap_or(Seen::Absent)) };
    let there = if is_in_pool(&known) { look(&known)? } else { None };
    Ok(there.unwrap_or_else(|| Seen::Lost { path: known.display().to_string() }))
}

/// Files in the pool that belong to volumes of that namespace and name.
///
/// # Errors
/// The file system's.
pub fn of_volume(dir: &Path, namespace: &str, name: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if names::is_volume_file(&file, namespace, name) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn header(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEADER as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes a blank volume.
///
/// # Errors
/// Why it could not be made; nothing of it is left.
pub fn create(dir: &Path, want: &Desired) -> Result<(), Failure> {
    fill(dir, want).and_then(|()| publish(dir, want)).inspect_err(|_| drop(discard(dir, &want.uid)))
}

fn fill(dir: &Path, want: &Desired) -> Result<(), Failure> {
    let part = part(dir, &want.uid);
    let file = open_part(&part, true).map_err(|error| Failure::io("make the file", &error))?;
    let capacity = want.capacity.unwrap_or_default();
    match (want.format, want.full) {
        (Format::Raw, false) => file.set_len(capacity).map_err(|error| Failure::io("make the file", &error))?,
        (Format::Raw, true) => fallocate(&file, FallocateFlags::empty(), 0, capacity)
            .map_err(|error| Failure::io("take the file's space", &error.into()))?,
        (Format::Qcow2, full) => {
            let preallocation = if full { "falloc" } else { "off" };
            let options = format!("compat=1.1,lazy_refcounts=off,preallocation={preallocation}");
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options], &part, &[&capacity.to_string()])?;
        }
    }
    Ok(())
}

/// Brings a part that was received whole to what is wanted, and gives it its name.
///
/// # Errors
/// Why it cannot be the volume.
pub fn finish(dir: &Path, want: &Desired) -> Result<(), Failure> {
    let part = part(dir, &want.uid);
    let failed = |error: io::Error| Failure::io("read the image", &error);
    let length = fs::symlink_metadata(&part).map_err(failed)?.len();
    if length == 0 {
        return Err(Failure { reason: "EmptyImage", message: "the server sent an empty file".into() });
    }
    let bytes = header(&part).map_err(failed)?;
    let image = image::read(&bytes, length, want.format)
        .map_err(|unfit| Failure { reason: unfit.reason, message: unfit.message })?;
    if want.format == Format::Raw && image::is_qcow2(&bytes) {
        let message = "the image is qcow2; set spec.format to Qcow2".to_owned();
        return Err(Failure { reason: "WrongFormat", message });
    }
    fit(&part, want, &image)?;
    if want.format == Format::Raw && want.full {
        grow(&part, want.format, want.capacity.unwrap_or(image.capacity), want.full)?;
    }
    publish(dir, want)?;
    absent_is_fine(fs::remove_file(sidecar(dir, &want.uid))).map_err(failed)
}

fn fit(part: &Path, want: &Desired, image: &Image) -> Result<(), Failure> {
    let Some(capacity) = want.capacity.filter(|capacity| *capacity != image.capacity) else {
        return Ok(());
    };
    if capacity < image.capacity {
        let message = format!("the image has {} bytes, spec.capacity only {capacity}", image.capacity);
        return Err(Failure { reason: "CapacityTooSmall", message });
    }
    grow(part, want.format, capacity, want.full)
}

/// Makes a file larger that nobody has open. One that is as large already stays as it is.
///
/// # Errors
/// Why it did not grow; what was in it is there.
pub fn grow(path: &Path, format: Format, capacity: u64, full: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("grow the file", &error);
    match format {
        Format::Raw => {
            let file = open_part(path, false).map_err(failed)?;
            let length = || file.metadata().map(|metadata| metadata.len());
            if full && let Err(error) = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, capacity) {
                // Setting the length that it has gives back what was taken behind its end before the disk was full.
                let _ = length().and_then(|length| file.set_len(length));
                return Err(failed(error.into()));
            }
            if length().map_err(failed)? < capacity { file.set_len(capacity).map_err(failed) } else { Ok(()) }
        }
        // qemu-img refuses to cut a file unless it is told to, and to touch one that a guest has open.
        Format::Qcow2 => {
            let preallocation = if full { "--preallocation=falloc" } else { "--preallocation=off" };
            qemu_img(&["resize", "-q", preallocation, "-f", "qcow2"], path, &[&capacity.to_string()])
        }
    }
}

/// The file is on the disk before its name is.
fn publish(dir: &Path, want: &storage_volume::Desired) -> Result<(), Failure> {
    give_name(&part(dir, &want.uid), &dir.join(&want.file))
        .map_err(|error| Failure::io("give the file its name", &error))
}

/// Gives a file that is whole its name, which nothing may have yet.
///
/// # Errors
/// The file system's.
pub fn give_name(part: &Path, path: &Path) -> io::Result<()> {
    open_part(part, false)?.sync_all()?;
    renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// `qemu-img`: no word of a user's is among its arguments but labels within a path that begins with a pool's.
///
/// # Errors
/// What it said.
pub fn qemu_img(before: &[&str], file: &Path, after: &[&str]) -> Result<(), Failure> {
    let output = Command::new("qemu-img").args(before).arg(file).args(after).env("LC_ALL", "C").output();
    let output = output.map_err(|error| Failure::io("run qemu-img", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = if said.contains("No space left") { "NoSpace" } else { "QemuImgFailed" };
    Err(Failure { reason, message: said })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn want(format: Format, capacity: u64) -> Desired {
        let file = format!("shop.v-00000000.{}", format.as_str());
        Desired { uid: "00000000-u".into(), file, format, capacity: Some(capacity), full: false, source: None }
    }

    #[test]
    fn zeros_take_no_space_and_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let bytes = [vec![7; 100], vec![0; 4 << 20], vec![9; 100], vec![0; 1 << 20]].concat();
        let mut file = open_part(&path, true).unwrap();
        bytes.chunks(100_000).for_each(|chunk| write_thinly(&mut file, chunk).unwrap());
        file.set_len(bytes.len() as u64).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "{:?}", file.metadata());
    }

    #[test]
    fn a_blank_volume_is_whole_closed_to_others_and_leaves_no_part() {
        let dir = tempfile::tempdir().unwrap();
        for format in [Format::Raw, Format::Qcow2] {
            let want = want(format, 1 << 20);
            create(dir.path(), &want).unwrap();
            let path = dir.path().join(&want.file);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let Seen::There { image, .. } = look(&path).unwrap().unwrap() else { panic!("it is not there") };
            assert_eq!(image.unwrap().capacity, 1 << 20);
            assert!(!part(dir.path(), &want.uid).exists());
        }
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let want = want(Format::Raw, 512);
        fs::write(dir.path().join(&want.file), "data").unwrap();
        let failure = create(dir.path(), &want).unwrap_err();
        assert!(failure.message.contains("exists"), "{failure:?}");
        assert_eq!(fs::read(dir.path().join(&want.file)).unwrap(), b"data");
    }

    #[test]
    fn a_file_that_is_as_large_already_is_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        for (format, name) in [(Format::Raw, "a.raw"), (Format::Qcow2, "a.qcow2")] {
            let want = Desired { file: name.into(), ..want(format, 4 << 20) };
            create(dir.path(), &want).unwrap();
            let _ = grow(&dir.path().join(name), format, 1 << 20, false);
            let Some(Seen::There { image, .. }) = look(&dir.path().join(name)).unwrap() else { panic!() };
            assert_eq!(image.unwrap().capacity, 4 << 20);
        }
    }

    #[test]
    fn an_image_that_is_larger_than_asked_for_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let want = want(Format::Raw, 512);
        fs::write(part(dir.path(), &want.uid), vec![0; 1024]).unwrap();
        assert_eq!(finish(dir.path(), &want).unwrap_err().reason, "CapacityTooSmall");
    }

    #[test]
    fn an_empty_image_is_no_volume() {
        let dir = tempfile::tempdir().unwrap();
        let want = want(Format::Raw, 512);
        fs::write(part(dir.path(), &want.uid), "").unwrap();
        assert_eq!(finish(dir.path(), &want).unwrap_err().reason, "EmptyImage");
    }

    #[test]
    fn an_imported_raw_image_takes_all_its_space_when_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for full in [false, true] {
            let want = Desired { full, file: format!("shop.v-{full}.raw"), ..want(Format::Raw, 1 << 20) };
            fs::write(part(dir.path(), &want.uid), "the image").unwrap();
            File::options().write(true).open(part(dir.path(), &want.uid)).unwrap().set_len(4096).unwrap();
            finish(dir.path(), &want).unwrap();
            let file = dir.path().join(&want.file);
            assert_eq!(fs::metadata(&file).unwrap().blocks() * 512 >= 1 << 20, full);
            assert!(fs::read(&file).unwrap().starts_with(b"the image"));
        }
    }

    #[test]
    fn what_was_known_and_is_gone_is_lost_and_never_absent() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("shop.v-00000000.raw"), dir.path().join("shop.v-11111111.raw"));
        let in_pool = |path: &PathBuf| path.parent() == Some(dir.path());
        let lost = |path: &Path| Seen::Lost { path: path.display().to_string() };
        assert_eq!(find(&own, None, in_pool).unwrap(), Seen::Absent);
        assert_eq!(find(&own, Some(own.clone()), in_pool).unwrap(), lost(&own));
        // A domain of ours has it, and it is not there: its file system may not be mounted.
        fs::write(&own, "").unwrap();
        assert_eq!(find(&own, Some(other.clone()), in_pool).unwrap(), lost(&other));
        // A pool that was made again with another path.
        let elsewhere = PathBuf::from("/old/shop.v-00000000.raw");
        assert_eq!(find(&own, Some(elsewhere.clone()), in_pool).unwrap(), lost(&elsewhere));
        assert!(matches!(find(&own, None, in_pool).unwrap(), Seen::There { .. }), "the status was wiped, the file is");
    }

    #[test]
    fn a_link_is_no_volume() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("l.raw")).unwrap();
        let Some(Seen::There { image, .. }) = look(&dir.path().join("l.raw")).unwrap() else { panic!() };
        assert_eq!(image.unwrap_err().reason, "NotAFile");
    }
}

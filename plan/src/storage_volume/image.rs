//! What is in an image file, from its first bytes. Pure: nothing but the header is believed, nothing that it points to is opened.

use crds::storage_volume::Format;

/// Bytes of a file's beginning that [`read`] needs.
pub const HEADER: usize = 104;

/// An image that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its format.
    pub format: Format,
    /// Bytes that a guest sees.
    pub capacity: u64,
}

/// Why an image cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// CamelCase word.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
}

/// Reads a file that should be of a format, from its first [`HEADER`] bytes (fewer when it is shorter) and its length.
///
/// A file whose name says Raw is raw, whatever a guest wrote at its beginning. Layout: QEMU's `docs/interop/qcow2.rst`.
///
/// # Errors
/// Whatever would make QEMU open another file, or fail.
pub fn read(header: &[u8], length: u64, format: Format) -> Result<Image, Unfit> {
    match format {
        Format::Raw => Ok(Image { format, capacity: length }),
        Format::Qcow2 => qcow2(header),
    }
}

/// Whether a file begins as qcow2 does.
pub fn is_qcow2(header: &[u8]) -> bool {
    header.starts_with(b"QFI\xfb")
}

fn qcow2(header: &[u8]) -> Result<Image, Unfit> {
    let unfit = |reason, message: &str| Err(Unfit { reason, message: message.into() });
    let (Some(version), Some(backing), Some(capacity), Some(encryption)) =
        (u32_at(header, 4), u64_at(header, 8), u64_at(header, 24), u32_at(header, 32))
    else {
        return unfit("WrongFormat", "it is not a qcow2 image");
    };
    if !is_qcow2(header) || !(2..=3).contains(&version) {
        return unfit("WrongFormat", "it is not a qcow2 image of version 2 or 3");
    }
    if backing != 0 {
        return unfit("BackingFile", "the image names a backing file; flatten it first (qemu-img convert)");
    }
    if encryption != 0 {
        return unfit("Encrypted", "the image is encrypted");
    }
    let features = if version == 3 { u64_at(header, 72).unwrap_or(u64::MAX) } else { 0 };
    if features & 0b100 != 0 {
        return unfit("ExternalData", "the image keeps its data in another file");
    }
    if features & 0b10 != 0 {
        return unfit("Corrupt", "the image says of itself that it is corrupt");
    }
    // Larger than QEMU's own limit is no image, and would overflow what counts with it.
    if capacity > i64::MAX as u64 {
        return unfit("WrongFormat", "the image says that it has more bytes than a disk can have");
    }
    Ok(Image { format: Format::Qcow2, capacity })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn header(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[24..32].copy_from_slice(&(64u64 << 20).to_be_bytes());
        bytes
    }

    #[test]
    fn a_plain_qcow2_tells_its_capacity() {
        for version in [2, 3] {
            assert_eq!(read(&header(version), 1, Format::Qcow2).unwrap().capacity, 64 << 20);
        }
    }

    #[test]
    fn what_leads_to_another_file_is_refused() {
        for (at, value, reason) in [
            (15, 1, "BackingFile"),
            (35, 1, "Encrypted"),
            (79, 0b100, "ExternalData"),
            (79, 0b10, "Corrupt"),
            (7, 9, "WrongFormat"),
        ] {
            let mut bytes = header(3);
            bytes[at] = value;
            assert_eq!(read(&bytes, 1, Format::Qcow2).unwrap_err().reason, reason);
        }
        assert_eq!(read(b"QFI\xfb", 4, Format::Qcow2).unwrap_err().reason, "WrongFormat");
    }

    #[test]
    fn a_raw_file_is_raw_whatever_its_guest_wrote_into_it() {
        assert_eq!(read(&header(3), 512, Format::Raw), Ok(Image { format: Format::Raw, capacity: 512 }));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, 0, Format::Qcow2);
        }
    }
}

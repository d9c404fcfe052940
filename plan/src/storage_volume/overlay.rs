//! What a qcow2 file says of the file below it, and whether anything was ever written into it. Pure; layout: QEMU's
//! `docs/interop/qcow2.rst`.

use super::image::{is_qcow2, u32_at, u64_at};
use crds::storage_volume::Format;

/// Bytes of a file's beginning that hold header, extensions and the name of the file below, as QEMU writes them.
pub const BEGINNING: usize = 8192;

/// The longest name that QEMU reads there.
const LONGEST: u32 = 1023;
/// The header extension with the format of the file below.
const FORMAT: u32 = 0xE279_2ACA;

/// The file below a qcow2 file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// Its path, as it is written there.
    pub path: String,
    /// Its format; absent when it is none of ours or is not written there.
    pub format: Option<Format>,
}

/// Where the table lies that is all zeros as long as nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Where it begins.
    pub at: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The file below.
pub fn below(beginning: &[u8]) -> Option<Below> {
    let (at, length) = (u64_at(beginning, 8)?, u32_at(beginning, 16)?);
    if !is_qcow2(beginning) || at == 0 || length > LONGEST {
        return None;
    }
    let at = usize::try_from(at).ok()?;
    let name = beginning.get(at..at.checked_add(usize::try_from(length).ok()?)?)?;
    let format = match extension(beginning, FORMAT) {
        Some(b"raw") => Some(Format::Raw),
        Some(b"qcow2") => Some(Format::Qcow2),
        Some(_) | None => None,
    };
    Some(Below { path: String::from_utf8(name.to_vec()).ok()?, format })
}

/// Bytes that a guest sees of a qcow2 file.
pub fn capacity(beginning: &[u8]) -> Option<u64> {
    u64_at(beginning, 24).filter(|_| is_qcow2(beginning))
}

/// The table of what was written, unless the file has snapshots within it: then it is not blank.
pub fn table(beginning: &[u8]) -> Option<Table> {
    let (entries, at, snapshots) = (u32_at(beginning, 36)?, u64_at(beginning, 40)?, u32_at(beginning, 60)?);
    (is_qcow2(beginning) && snapshots == 0).then(|| Table { at, length: u64::from(entries) * 8 })
}

fn extension(beginning: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut at = if u32_at(beginning, 4)? == 2 { 72 } else { usize::try_from(u32_at(beginning, 100)?).ok()? };
    loop {
        let (kind, length) = (u32_at(beginning, at)?, usize::try_from(u32_at(beginning, at + 4)?).ok()?);
        let data = beginning.get(at + 8..(at + 8).checked_add(length)?);
        match kind {
            0 => return None,
            _ if kind == wanted => return data,
            _ => at = at.checked_add(8 + length.div_ceil(8) * 8)?,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn file() -> Vec<u8> {
        let mut bytes = vec![0; 600];
        let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
        put(0, b"QFI\xfb\0\0\0\x03");
        put(8, &200u64.to_be_bytes());
        put(16, &4u32.to_be_bytes());
        put(24, &4096u64.to_be_bytes());
        put(36, &2u32.to_be_bytes());
        put(40, &196_608u64.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        put(104, &0x6803_f857u32.to_be_bytes());
        put(108, &3u32.to_be_bytes());
        put(120, &FORMAT.to_be_bytes());
        put(124, &3u32.to_be_bytes());
        put(128, b"raw");
        put(200, b"/p/a");
        bytes
    }

    #[test]
    fn an_overlay_names_the_file_below_and_its_format() {
        assert_eq!(below(&file()), Some(Below { path: "/p/a".into(), format: Some(Format::Raw) }));
        assert_eq!(capacity(&file()), Some(4096));
        assert_eq!(table(&file()), Some(Table { at: 196_608, length: 16 }));
        assert_eq!(below(b"QFI\xfb"), None);
        let mut alone = file();
        alone[8..16].fill(0);
        assert_eq!(below(&alone), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..300, word: u32) {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&word.to_be_bytes());
            }
            let magic = bytes.len().min(4);
            bytes[..magic].copy_from_slice(&b"QFI\xfb"[..magic]);
            let _ = (below(&bytes), table(&bytes), capacity(&bytes));
        }
    }
}

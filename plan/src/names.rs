//! Names that we give to things on a host. Pure; no result holds a `/` or begins with a user's word in a hidden place.

use crds::storage_volume::Format;
use crds::virtual_machine::Disk;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Name space of our version 5 UUIDs (a random one, fixed for ever).
const UUIDS: Uuid = Uuid::from_u128(0x6f0d_0b1e_5a0c_4b0e_9a53_7d3c_2f41_b6a8);

/// Whether a text is a DNS label, as the API server demands of our objects' names: nothing else becomes part of a path.
pub fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

/// A machine's domain: `<namespace>.<name>`. Neither part can hold a dot.
pub fn domain(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// Name of the volume behind a disk.
pub fn disk_volume(vm: &str, disk: &Disk) -> String {
    disk.volume.clone().unwrap_or_else(|| format!("{vm}-{}", disk.name))
}

/// A volume's file in its pool: `<namespace>.<name>-<first 8 of uid>.<format>`.
pub fn volume_file(namespace: &str, name: &str, uid: &str, format: Format) -> String {
    format!("{namespace}.{name}-{}.{}", first8(uid), format.as_str())
}

/// Whether a file name is that of a volume of this namespace and name, of whatever uid and format.
pub fn is_volume_file(file: &str, namespace: &str, name: &str) -> bool {
    let rest = file.strip_prefix(namespace).and_then(|f| f.strip_prefix('.')).and_then(|f| f.strip_prefix(name));
    let Some((uid, format)) = rest.and_then(|f| f.strip_prefix('-')).and_then(|f| f.split_once('.')) else {
        return false;
    };
    uid.len() == 8 && uid.chars().all(|c| c.is_ascii_hexdigit()) && ["raw", "qcow2"].contains(&format)
}

/// What the names of all files of one volume begin with: `<namespace>.<name>-<first 8 of uid>`; a dot and a word of their own follow.
pub fn stem(file: &str) -> Option<&str> {
    let (namespace, rest) = file.split_once('.')?;
    let (volume, word) = rest.split_once('.')?;
    let (name, uid) = volume.rsplit_once('-')?;
    let ours = is_label(namespace) && !name.is_empty() && uid.len() == 8 && uid.chars().all(|c| c.is_ascii_hexdigit());
    (ours && !word.is_empty()).then(|| &file[..namespace.len() + 1 + volume.len()])
}

/// Whether a stem is that of volumes of this namespace and name, of whatever uid.
pub fn is_stem_of(stem: &str, namespace: &str, name: &str) -> bool {
    let rest = stem.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('.'));
    rest.and_then(|rest| rest.rsplit_once('-')).is_some_and(|(of, _)| of == name)
}

/// The volume that a file at this path is of: the directory and the stem.
pub fn volume_of(path: &str) -> Option<&str> {
    let (dir, file) = path.rsplit_once('/')?;
    Some(&path[..dir.len() + 1 + stem(file)?.len()])
}

/// Whether two paths are of files of one volume in one directory.
pub fn is_same_volume(one: &str, other: &str) -> bool {
    one == other || volume_of(one).is_some_and(|one| Some(one) == volume_of(other))
}

/// The file that a disk is on after a snapshot, beside the file that it was on; absent when that is no volume's.
pub fn overlay_file(file: &str, snapshot: &str, uid: &str) -> Option<String> {
    is_label(snapshot).then(|| Some(format!("{}.{snapshot}-{}", stem(file)?, first8(uid))))?
}

/// A volume's file while it is being made.
pub fn part_file(uid: &str) -> String {
    format!(".{uid}.part")
}

/// What is known of the file while it is being made.
pub fn sidecar_file(uid: &str) -> String {
    format!(".{uid}.part.json")
}

/// The uid in the name of a part or its sidecar.
pub fn uid_of_part(file: &str) -> Option<&str> {
    let uid = file.strip_prefix('.')?;
    uid.strip_suffix(".part").or_else(|| uid.strip_suffix(".part.json")).filter(|uid| !uid.is_empty())
}

/// UUID of a pool on a host.
pub fn pool_uuid(cluster: &str, name: &str, host: &str) -> String {
    Uuid::new_v5(&UUIDS, [cluster, "StoragePool", name, host].join("\0").as_bytes()).to_string()
}

/// Namespace with the copies of secrets that a host may read.
pub fn host_namespace(host: &str) -> String {
    format!("virtfleet-host-{}", &hex(&Sha256::digest(host.as_bytes()))[..8])
}

/// The copy of a Secret that one volume's import needs, in the namespace of its host.
pub fn import_secret(uid: &str) -> String {
    format!("import-{uid}")
}

/// UID of the volume in the name of such a copy.
pub fn uid_of_import_secret(name: &str) -> Option<&str> {
    name.strip_prefix("import-").filter(|uid| !uid.is_empty())
}

/// Hardware address of an interface, in QEMU's range.
pub fn mac(uid: &str, interface: &str) -> String {
    let digest = Sha256::digest([uid, interface].join("\0").as_bytes());
    format!("52:54:00:{:02x}:{:02x}:{:02x}", digest[0], digest[1], digest[2])
}

fn first8(uid: &str) -> &str {
    uid.get(..8).unwrap_or(uid)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const UID: &str = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";

    #[test]
    fn a_volume_file_is_known_by_namespace_and_name_and_no_other() {
        let file = volume_file("shop", "web", UID, Format::Qcow2);
        assert_eq!(file, "shop.web-0a1b2c3d.qcow2");
        assert!(is_volume_file(&file, "shop", "web"));
        for (namespace, name) in [("shop", "we"), ("sho", "web"), ("shop", "web-0a1b2c3d"), ("p", "web"), ("", "web")] {
            assert!(!is_volume_file(&file, namespace, name), "{namespace}/{name}");
        }
        for other in [
            "shop.web-data-0a1b2c3d.qcow2",
            "shop.web-0a1b2c3d",
            "shop.web-0a1b2c3d.qcow2.snap",
            "shop.web-xxxxxxxx.raw",
        ] {
            assert!(!is_volume_file(other, "shop", "web"), "{other}");
        }
    }

    #[test]
    fn the_files_of_a_volume_are_known_by_their_common_beginning() {
        let base = volume_file("shop", "web", UID, Format::Raw);
        let overlay = overlay_file(&base, "before", UID).unwrap();
        assert_eq!(overlay, "shop.web-0a1b2c3d.before-0a1b2c3d");
        assert!(is_same_volume(&format!("/p/{base}"), &format!("/p/{overlay}")));
        assert!(!is_same_volume(&format!("/p/{base}"), &format!("/q/{overlay}")));
        assert!(!is_volume_file(&overlay, "shop", "web"));
        let stem_of = stem(&overlay).unwrap();
        assert!(is_stem_of(stem_of, "shop", "web") && !is_stem_of(stem_of, "shop", "we"));
        assert_eq!(overlay_file(&overlay, "after", UID).unwrap(), "shop.web-0a1b2c3d.after-0a1b2c3d");
        let other = volume_file("shop", "web-0a1b2c3d", UID, Format::Raw);
        assert!(!is_same_volume(&format!("/p/{base}"), &format!("/p/{other}")));
        for foreign in
            ["disk.qcow2", "shop.web.qcow2", "shop.web-0a1b2c3d", "shop.web-0a1b2c3d.", "Shop.web-0a1b2c3d.x"]
        {
            assert_eq!(stem(foreign), None, "{foreign}");
        }
        assert_eq!(overlay_file(&base, "../x", UID), None);
    }

    #[test]
    fn only_labels_become_part_of_a_path() {
        for bad in ["", "..", "../x", "a/b", "a.b", "A", "-a", "a-", "a b", "\"><x>", "a\0", "é", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_label("a") && is_label("web-1") && is_label(&"a".repeat(63)));
    }

    #[test]
    fn a_part_gives_its_uid_back() {
        assert_eq!(uid_of_part(&part_file(UID)), Some(UID));
        assert_eq!(uid_of_part(&sidecar_file(UID)), Some(UID));
        for other in [".part", "x.part", ".hidden", "shop.web-0a1b2c3d.raw"] {
            assert_eq!(uid_of_part(other), None, "{other}");
        }
    }

    #[test]
    fn a_copy_of_a_secret_gives_its_volume_back() {
        assert_eq!(uid_of_import_secret(&import_secret(UID)), Some(UID));
        for other in ["import-", UID, "important", "default-token"] {
            assert_eq!(uid_of_import_secret(other), None, "{other}");
        }
    }

    #[test]
    fn generated_identities_differ_by_each_of_their_parts() {
        assert_ne!(pool_uuid("c", "a", "b"), pool_uuid("c", "b", "a"));
        assert_ne!(mac(UID, "lan"), mac(UID, "wan"));
        assert_eq!(mac(UID, "lan").len(), 17);
        assert_eq!(host_namespace("node-a").len(), "virtfleet-host-".len() + 8);
        assert_ne!(host_namespace("node-a"), host_namespace("node-b"));
    }
}

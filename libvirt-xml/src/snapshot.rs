//! A domain's snapshot: asked for, or read from libvirt's XML.

use crate::read_only::{self, at, children, text_at};
use crate::tree::Tree;
use crate::{DiskFormat, Error, Merged, domain_edit, domain_read, without_merged};
use roxmltree::Node;

/// Begins the description of a snapshot of ours; the object's UID follows.
const CLAIM: &str = "virtfleet.dev/uid=";

/// libvirt's note in a snapshot's disk that one which follows is being merged into it.
const UNFINISHED: &str = "snapshotDeleteInProgress";

/// A snapshot to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name in libvirt.
    pub name: String,
    /// UID of its object.
    pub uid: String,
    /// Every disk of the domain: libvirt would decide for itself about one that is not named.
    pub disks: Vec<RequestedDisk>,
}

/// What is done with one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedDisk {
    /// Its target, such as `vda`.
    pub target: String,
    /// What is done.
    pub part: Part,
}

/// A disk's part in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// None.
    Excluded,
    /// Kept within its file.
    Internal,
    /// Its file is left, and this qcow2 file written to from now on.
    External {
        /// The new file.
        overlay: String,
    },
}

/// Where a snapshot keeps what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Within the disks' files.
    Internal,
    /// In files of their own.
    External,
}

/// A snapshot as libvirt tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// UID of the object that it is of; absent when it is not ours.
    pub uid: Option<String>,
    /// Name of the one before it.
    pub parent: Option<String>,
    /// When it was taken, in seconds since 1970.
    pub created: i64,
    /// libvirt's word for the domain's state then: `shutoff`, `running`, `paused`, or `disk-snapshot` of a guest that was on.
    pub state: String,
    /// Where each disk, and the memory if it is in it, is kept. Empty when libvirt does not say.
    pub places: Vec<Place>,
    /// The disks that are in it.
    pub disks: Vec<Disk>,
    /// Every file that it names.
    pub files: Vec<String>,
    /// Whether libvirt has begun to merge one that follows into it, and not noted the end.
    pub unfinished: bool,
}

/// What libvirt writes down of a snapshot that it has taken.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it was taken, in seconds since 1970.
    pub created: i64,
    /// Name of the one before it.
    pub parent: Option<&'a str>,
    /// Whether the domain was on.
    pub on: bool,
    /// The domain's inactive XML as it is since, on the overlays.
    pub inactive_xml: &'a str,
    /// The overlays, with the file below each.
    pub overlays: &'a [Merged],
}

/// A disk in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Name of the disk in the manifest; absent when it is not ours.
    pub name: Option<String>,
    /// Its target.
    pub target: String,
    /// Where it is kept.
    pub place: Place,
    /// The file that holds it as it was.
    pub file: String,
    /// Format of that file.
    pub format: DiskFormat,
    /// The file that was written to from then on; only of an external one.
    pub overlay: Option<String>,
}

impl Request {
    /// XML of the request.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for characters that XML cannot carry.
    pub fn render(&self) -> Result<String, Error> {
        let mut tree = Tree::parse("<domainsnapshot><name/><description/><disks/></domainsnapshot>")?;
        let top = tree.top;
        for (name, value) in [("name", &self.name), ("description", &claim(&self.uid))] {
            let node = tree.child_or_new(top, name)?;
            tree.set_text(node, value)?;
        }
        let disks = tree.child_or_new(top, "disks")?;
        for disk in &self.disks {
            let place = match disk.part {
                Part::Excluded => "no",
                Part::Internal => "internal",
                Part::External { .. } => "external",
            };
            let node = tree.append(disks, "disk", &[("name", &disk.target), ("snapshot", place)])?;
            if let Part::External { overlay } = &disk.part {
                tree.set_attribute(node, "type", "file")?;
                tree.append(node, "driver", &[("type", "qcow2")])?;
                tree.append(node, "source", &[("file", overlay)])?;
            }
        }
        tree.write()
    }

    /// XML of the record that libvirt would have, had it not died between taking it and writing that down.
    ///
    /// # Errors
    /// As [`Request::render`], and when the domain's XML is none.
    pub fn record(&self, of: &Record<'_>) -> Result<String, Error> {
        let mut tree = Tree::parse(&self.render()?)?;
        let top = tree.top;
        let state = if of.on { "disk-snapshot" } else { "shutoff" };
        for (name, value) in [("state", state), ("creationTime", &of.created.to_string())] {
            let node = tree.append(top, name, &[])?;
            tree.set_text(node, value)?;
        }
        tree.append(top, "memory", &[("snapshot", "no")])?;
        if let Some(parent) = of.parent {
            let node = tree.append(top, "parent", &[])?;
            let node = tree.append(node, "name", &[])?;
            tree.set_text(node, parent)?;
        }
        let before = without_merged(of.inactive_xml, of.overlays)?;
        let before = before.as_deref().unwrap_or(of.inactive_xml);
        tree.append_document(top, before, "domain")?;
        if of.on {
            tree.append_document(top, before, "inactiveDomain")?;
        }
        tree.write()
    }
}

impl Snapshot {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// When it is not libvirt's XML of a snapshot.
    pub fn parse(xml: &str) -> Result<Snapshot, Error> {
        let document = read_only::document(xml)?;
        let top = document.root_element();
        let created = text_at(top, &["creationTime"]).ok_or(Error::Missing("creationTime"))?;
        let disks = disks(top);
        let memory = at(top, &["memory"]).and_then(|node| place(node.attribute("snapshot")));
        let places = memory.into_iter().chain(disks.iter().map(|disk| disk.place)).collect();
        let sources = top.descendants().filter(|node| node.tag_name().name() == "source");
        Ok(Snapshot {
            name: text_at(top, &["name"]).ok_or(Error::Missing("name"))?,
            uid: text_at(top, &["description"]).and_then(|text| text.strip_prefix(CLAIM).map(str::to_owned)),
            parent: text_at(top, &["parent", "name"]),
            created: created.parse().map_err(|_| Error::Unexpected { what: "creationTime", value: created.clone() })?,
            state: text_at(top, &["state"]).unwrap_or_default(),
            files: sources
                .filter_map(|node| node.attribute("file").or_else(|| node.attribute("dev")))
                .map(str::to_owned)
                .collect(),
            unfinished: top.descendants().any(|node| node.tag_name().name() == UNFINISHED),
            places,
            disks,
        })
    }
}

/// A snapshot's XML with our claim on it replaced, or with `None` taken away; all else survives.
///
/// # Errors
/// As [`Snapshot::parse`] and [`Request::render`].
pub fn claimed(xml: &str, uid: Option<&str>) -> Result<String, Error> {
    let mut tree = Tree::parse(xml)?;
    let top = tree.top;
    match (uid, tree.child(top, "description")) {
        (Some(uid), _) => {
            let node = tree.child_or_new(top, "description")?;
            tree.set_text(node, &claim(uid))?;
        }
        (None, Some(node)) => tree.remove(node)?,
        (None, None) => {}
    }
    tree.write()
}

/// A snapshot's XML in which the disks on these overlays are not in it; all else survives.
///
/// # Errors
/// As [`claimed`].
pub fn without(xml: &str, overlays: &[&str]) -> Result<String, Error> {
    let mut tree = Tree::parse(xml)?;
    let disks = tree.child_or_new(tree.top, "disks")?;
    for disk in tree.children(disks, "disk").collect::<Vec<_>>() {
        let Some(source) = tree.child(disk, "source") else { continue };
        if !tree.attribute(source, "file").is_some_and(|file| overlays.contains(&file)) {
            continue;
        }
        let name = tree.attribute(disk, "name").unwrap_or_default().to_owned();
        tree.remove(disk)?;
        tree.append(disks, "disk", &[("name", &name), ("snapshot", "no")])?;
    }
    tree.write()
}

/// A snapshot's XML in which disks that it keeps in a merged file are kept in the one below; all else survives.
///
/// # Errors
/// As [`claimed`].
pub fn kept_below(xml: &str, merged: &[Merged]) -> Result<String, Error> {
    let mut tree = Tree::parse(xml)?;
    for name in ["domain", "inactiveDomain"] {
        if let Some(domain) = tree.child(tree.top, name) {
            domain_edit::take_off(&mut tree, domain, merged)?;
        }
    }
    tree.write()
}

/// A snapshot's XML without libvirt's note that one which follows is being merged into it; all else survives.
///
/// # Errors
/// As [`claimed`].
pub fn finished(xml: &str) -> Result<String, Error> {
    let mut tree = Tree::parse(xml)?;
    let notes: Vec<_> = tree.descendants(tree.top, UNFINISHED).collect();
    for note in notes {
        tree.remove(note)?;
    }
    tree.write()
}

fn claim(uid: &str) -> String {
    format!("{CLAIM}{uid}")
}

fn place(word: Option<&str>) -> Option<Place> {
    match word {
        Some("internal") => Some(Place::Internal),
        Some("external") => Some(Place::External),
        Some(_) | None => None,
    }
}

/// The disks in the snapshot, with their names and files from the domain's definition of then. A running domain has two definitions, which
/// name the same files.
fn disks(top: Node<'_, '_>) -> Vec<Disk> {
    let of_domain: Vec<Node<'_, '_>> =
        at(top, &["domain", "devices"]).map_or_else(Vec::new, |devices| children(devices, "disk").collect());
    let disk = |node: Node<'_, '_>| {
        let target = node.attribute("name")?.to_owned();
        let place = place(node.attribute("snapshot"))?;
        let own = |disk: &&Node<'_, '_>| at(**disk, &["target"]).and_then(|t| t.attribute("dev")) == Some(&target);
        let then = of_domain.iter().find(own).copied();
        let get = |child: &str, attribute: &str| Some(at(then?, &[child])?.attribute(attribute)?.to_owned());
        Some(Disk {
            name: get("alias", "name").and_then(|n| n.strip_prefix(domain_read::DISK_ALIAS).map(str::to_owned)),
            file: get("source", "file").or_else(|| get("source", "dev")).unwrap_or_default(),
            format: match get("driver", "type").as_deref() {
                Some("qcow2") => DiskFormat::Qcow2,
                Some(_) | None => DiskFormat::Raw,
            },
            overlay: at(node, &["source"]).and_then(|node| node.attribute("file")).map(str::to_owned),
            target,
            place,
        })
    };
    let in_snapshot = at(top, &["disks"]);
    in_snapshot.into_iter().flat_map(|node| children(node, "disk")).filter_map(disk).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As libvirt 11.3 tells of a snapshot that was taken of a domain that was off, shortened.
    const TAKEN: &str = "<domainsnapshot><name>s2</name><description>virtfleet.dev/uid=abc</description><state>shutoff</state>\
        <parent><name>s1</name></parent><creationTime>1795603224</creationTime><memory snapshot='no'/><disks>\
        <disk name='vda' snapshot='external' type='file'><driver type='qcow2'/><source file='/p/shop.a-00000000.s2-0'/></disk>\
        <disk name='vdb' snapshot='no'/></disks>\
        <domain type='qemu'><name>shop.web</name><devices>\
        <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/p/shop.a-00000000.raw'/>\
        <target dev='vda' bus='virtio'/><alias name='ua-disk-a'/></disk>\
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/p/shop.b-00000000.qcow2'/>\
        <target dev='vdb' bus='virtio'/></disk></devices></domain></domainsnapshot>";

    #[test]
    fn a_snapshot_tells_whose_it_is_and_what_is_in_it() {
        let seen = Snapshot::parse(TAKEN).unwrap();
        assert_eq!(
            (seen.uid.as_deref(), seen.parent.as_deref(), seen.created),
            (Some("abc"), Some("s1"), 1_795_603_224)
        );
        assert_eq!(seen.places, [Place::External]);
        let disk = Disk {
            name: Some("a".into()),
            target: "vda".into(),
            place: Place::External,
            file: "/p/shop.a-00000000.raw".into(),
            format: DiskFormat::Raw,
            overlay: Some("/p/shop.a-00000000.s2-0".into()),
        };
        assert_eq!(seen.disks, [disk]);
        assert_eq!(seen.files.len(), 3);
    }

    #[test]
    fn a_claim_is_put_on_and_taken_off_and_nothing_else_changes() {
        let other = claimed(TAKEN, Some("new & <other>")).unwrap();
        assert_eq!(Snapshot::parse(&other).unwrap().uid.as_deref(), Some("new & <other>"));
        let none = claimed(&other, None).unwrap();
        assert_eq!(Snapshot::parse(&none).unwrap().uid, None);
        assert_eq!(claimed(&none, None).unwrap(), none);
        let without = |seen: Snapshot| Snapshot { uid: None, ..seen };
        assert_eq!(without(Snapshot::parse(TAKEN).unwrap()), Snapshot::parse(&none).unwrap());
        let foreign = TAKEN.replace("virtfleet.dev/uid=abc", "before the update");
        assert_eq!(Snapshot::parse(&foreign).unwrap().uid, None);
    }

    #[test]
    fn a_disk_is_struck_from_a_record_and_nothing_else_changes() {
        let overlay = "/p/shop.a-00000000.s2-0";
        let struck = without(TAKEN, &["/p/another", overlay]).unwrap();
        let (was, is) = (Snapshot::parse(TAKEN).unwrap(), Snapshot::parse(&struck).unwrap());
        let files = was.files.iter().filter(|file| *file != overlay).cloned().collect();
        assert_eq!(is, Snapshot { disks: Vec::new(), places: Vec::new(), files, ..was });
        assert!(struck.contains(r#"<disk name="vda" snapshot="no"/>"#), "libvirt would decide for itself: {struck}");
    }

    #[test]
    fn what_a_snapshot_keeps_in_a_merged_file_is_kept_below() {
        let (overlay, below) = ("/p/shop.b-00000000.qcow2".to_owned(), "/p/shop.b-00000000.raw".to_owned());
        let merged = [Merged { overlay: overlay.clone(), below: below.clone(), format: DiskFormat::Raw }];
        let noted = TAKEN.replace("'/p/shop.a-00000000.raw'", &format!("'{overlay}'"));
        let kept = Snapshot::parse(&kept_below(&noted, &merged).unwrap()).unwrap();
        let was = Snapshot::parse(&noted).unwrap();
        assert_eq!((&was.disks[0].file, was.disks[0].format), (&overlay, DiskFormat::Raw));
        assert_eq!((&kept.disks[0].file, kept.disks[0].format), (&below, DiskFormat::Raw));
        assert!(!kept.files.contains(&overlay));
        assert_eq!(kept.disks[0].overlay, was.disks[0].overlay);
    }

    #[test]
    fn the_note_of_a_merge_is_taken_off() {
        let noted = TAKEN.replace("s2-0'/></disk>", "s2-0'/><snapshotDeleteInProgress/></disk>");
        assert!(Snapshot::parse(&noted).unwrap().unfinished);
        let finished = finished(&noted).unwrap();
        assert_eq!(Snapshot::parse(&finished).unwrap(), Snapshot::parse(TAKEN).unwrap());
    }

    #[test]
    fn a_record_says_what_libvirt_would_have_said() {
        let taken = Snapshot::parse(TAKEN).unwrap();
        let (at, end) = (TAKEN.find("<domain type").unwrap(), TAKEN.find("</domainsnapshot>").unwrap());
        // As the domain is since: on the overlay.
        let since = TAKEN[at..end].replace(
            "type='raw'/><source file='/p/shop.a-00000000.raw'",
            "type='qcow2'/><source file='/p/shop.a-00000000.s2-0'",
        );
        let disks = vec![
            RequestedDisk { target: "vda".into(), part: Part::External { overlay: "/p/shop.a-00000000.s2-0".into() } },
            RequestedDisk { target: "vdb".into(), part: Part::Excluded },
        ];
        let below = Merged {
            overlay: "/p/shop.a-00000000.s2-0".into(),
            below: "/p/shop.a-00000000.raw".into(),
            format: DiskFormat::Raw,
        };
        let request = Request { name: "s2".into(), uid: "abc".into(), disks };
        for on in [false, true] {
            let (created, overlays) = (taken.created, std::slice::from_ref(&below));
            let record = Record { created, parent: Some("s1"), on, inactive_xml: &since, overlays };
            let xml = request.record(&record).unwrap();
            let told = Snapshot::parse(&xml).unwrap();
            assert_eq!(told.state, if on { "disk-snapshot" } else { "shutoff" });
            // A running domain has two definitions, which name the same files.
            let files = Vec::new();
            let apart = |seen: Snapshot| Snapshot { files: files.clone(), state: String::new(), ..seen };
            assert_eq!(apart(told), apart(taken.clone()), "{xml}");
        }
    }

    #[test]
    fn a_request_names_every_disk() {
        let request = Request {
            name: "s".into(),
            uid: "u".into(),
            disks: vec![
                RequestedDisk { target: "vda".into(), part: Part::External { overlay: "/p/o".into() } },
                RequestedDisk { target: "vdb".into(), part: Part::Excluded },
                RequestedDisk { target: "vdc".into(), part: Part::Internal },
            ],
        };
        let xml = request.render().unwrap();
        for part in [
            r#"<disk name="vda" snapshot="external" type="file"><driver type="qcow2"/><source file="/p/o"/></disk>"#,
            r#"<disk name="vdb" snapshot="no"/>"#,
            r#"<disk name="vdc" snapshot="internal"/>"#,
            "<description>virtfleet.dev/uid=u</description>",
        ] {
            assert!(xml.contains(part), "{xml}");
        }
    }
}

//! The element in a domain's metadata that says whose it is, and what libvirt itself would forget.

use crate::Error;
use crate::tree::Tree;
use jiff::Timestamp;
use xot::Node;

/// Namespace of the element; libvirt finds metadata by it.
pub const NAMESPACE: &str = "https://virtfleet.dev/ns/domain/1";
/// Prefix under which libvirt stores it.
pub const PREFIX: &str = "vf";
const ELEMENT: &str = "owner";

/// Whose domain it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// UID of namespace kube-system.
    pub cluster: String,
    /// Namespace of the VirtualMachine.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The whole element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose domain it is.
    pub owner: Owner,
    /// UUID of the domain that was marked. A clone takes the element along, but not the UUID: it is nobody's.
    pub domain: String,
    /// Where the domain is between starts and stops of ours.
    pub run: Run,
    /// Value of the restart annotation that the last start answered.
    pub restarted_at: Option<String>,
    /// Digest of what we last defined: a definition that gives another was changed by somebody else.
    pub applied: Option<String>,
}

/// Where a domain is between starts and stops of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It is off because we wanted it so.
    Stopped,
    /// It is to be started.
    Starting,
    /// It was started.
    Started,
    /// It was asked to shut down.
    Stopping {
        /// When it was first asked.
        since: Timestamp,
    },
    /// Its guest shut itself down, and that was accepted.
    StoppedByGuest,
}

impl Run {
    fn as_str(self) -> &'static str {
        match self {
            Run::Stopped => "stopped",
            Run::Starting => "starting",
            Run::Started => "started",
            Run::Stopping { .. } => "stopping",
            Run::StoppedByGuest => "stopped-by-guest",
        }
    }

    fn read(word: &str, since: Option<&str>) -> Option<Run> {
        Some(match word {
            "stopped" => Run::Stopped,
            "starting" => Run::Starting,
            "started" => Run::Started,
            "stopping" => Run::Stopping { since: since?.parse().ok()? },
            "stopped-by-guest" => Run::StoppedByGuest,
            _ => return None,
        })
    }
}

impl Mark {
    /// The element as a document of its own, as `virDomainSetMetadata` takes it: libvirt adds the namespace.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for characters that XML cannot carry.
    pub fn element(&self) -> Result<String, Error> {
        let mut tree = Tree::parse("<owner/>")?;
        let top = tree.top;
        self.write(&mut tree, top)?;
        tree.write()
    }

    /// Reads the element as `virDomainGetMetadata` gives it for the domain of this UUID.
    ///
    /// # Errors
    /// When it is not such an element, or another domain's.
    pub fn parse(xml: &str, domain: &str) -> Result<Mark, Error> {
        let tree = Tree::parse(xml)?;
        read(&tree, tree.top, domain)
    }

    fn write(&self, tree: &mut Tree, node: Node) -> Result<(), Error> {
        let Owner { cluster, namespace, name, uid } = &self.owner;
        for (key, value) in [("cluster", cluster), ("namespace", namespace), ("name", name), ("uid", uid)] {
            tree.set_attribute(node, key, value)?;
        }
        tree.set_attribute(node, "domain", &self.domain)?;
        tree.set_attribute(node, "run", self.run.as_str())?;
        if let Run::Stopping { since } = self.run {
            tree.set_attribute(node, "since", &since.to_string())?;
        }
        for (key, value) in [("restartedAt", &self.restarted_at), ("applied", &self.applied)] {
            if let Some(value) = value {
                tree.set_attribute(node, key, value)?;
            }
        }
        Ok(())
    }
}

fn read(tree: &Tree, node: Node, domain: &str) -> Result<Mark, Error> {
    let get = |name: &str| tree.attribute(node, name).map(str::to_owned);
    let need = |name: &'static str| get(name).ok_or(Error::Missing(name));
    // A mark of an older or newer agent without a run we know: off stays off and on stays on.
    let run = get("run").and_then(|word| Run::read(&word, tree.attribute(node, "since"))).unwrap_or(Run::Started);
    let marked = need("domain")?;
    if marked != domain {
        return Err(Error::Unexpected { what: "domain of the mark", value: marked });
    }
    Ok(Mark {
        domain: marked,
        owner: Owner {
            cluster: need("cluster")?,
            namespace: need("namespace")?,
            name: need("name")?,
            uid: need("uid")?,
        },
        run,
        restarted_at: get("restartedAt"),
        applied: get("applied"),
    })
}

fn find(tree: &Tree) -> Option<Node> {
    let metadata = tree.child(tree.top, "metadata")?;
    tree.elements(metadata).find(|node| tree.name(*node) == ELEMENT && tree.namespace(*node) == NAMESPACE)
}

/// The mark in a domain's tree. A mark that cannot be read is no mark of ours.
pub(crate) fn of(tree: &Tree) -> Option<Mark> {
    read(tree, find(tree)?, &tree.text_at(tree.top, &["uuid"])?).ok()
}

/// Puts the mark into a domain's tree, or takes it out.
pub(crate) fn set(tree: &mut Tree, mark: Option<&Mark>) -> Result<(), Error> {
    if let Some(old) = find(tree) {
        tree.remove(old)?;
    }
    let Some(mark) = mark else {
        return Ok(());
    };
    let metadata = tree.child_or_new(tree.top, "metadata")?;
    let node = tree.append_in(metadata, ELEMENT, PREFIX, NAMESPACE)?;
    mark.write(tree, node)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for run in [
            Run::Stopped,
            Run::Starting,
            Run::Started,
            Run::Stopping { since: Timestamp::from_second(5).unwrap() },
            Run::StoppedByGuest,
        ] {
            let owner = Owner { cluster: "c".into(), namespace: "shop".into(), name: "web".into(), uid: "u".into() };
            let mark = Mark {
                owner,
                domain: "d".into(),
                run,
                restarted_at: Some("a \"<&>' b".into()),
                applied: Some("0".into()),
            };
            assert_eq!(Mark::parse(&mark.element().unwrap(), "d").unwrap(), mark);
            assert!(Mark::parse(&mark.element().unwrap(), "its clone").is_err());
        }
    }
}

//! A storage pool of type `dir`.

use crate::Error;
use crate::tree::Tree;

/// A pool as libvirt defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name in libvirt.
    pub name: String,
    /// UUID in its usual form.
    pub uuid: String,
    /// libvirt's type: `dir` for ours.
    pub kind: String,
    /// Directory; empty for pools that have none.
    pub path: String,
}

impl Pool {
    /// XML of the pool.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for characters that XML cannot carry.
    pub fn render(&self) -> Result<String, Error> {
        let mut tree = Tree::parse("<pool><name/><uuid/><target><path/></target></pool>")?;
        let top = tree.top;
        tree.set_attribute(top, "type", &self.kind)?;
        for (path, value) in [(&["name"][..], &self.name), (&["uuid"], &self.uuid), (&["target", "path"], &self.path)] {
            let node = tree.at(top, path).ok_or(Error::Missing("pool"))?;
            tree.set_text(node, value)?;
        }
        tree.write()
    }

    /// Reads a pool.
    ///
    /// # Errors
    /// When it is not libvirt's XML of a pool.
    pub fn parse(xml: &str) -> Result<Pool, Error> {
        let tree = Tree::parse(xml)?;
        Ok(Pool {
            name: tree.text_at(tree.top, &["name"]).ok_or(Error::Missing("name"))?,
            uuid: tree.text_at(tree.top, &["uuid"]).ok_or(Error::Missing("uuid"))?,
            kind: tree.attribute(tree.top, "type").unwrap_or_default().into(),
            path: tree.text_at(tree.top, &["target", "path"]).unwrap_or_default(),
        })
    }
}

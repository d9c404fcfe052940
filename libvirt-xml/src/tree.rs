//! A thin layer on xot: elements and attributes by local name, and only text that XML can carry.

use crate::Error;
use xot::{Node, Xot};

/// Larger documents are refused: libvirt's largest are some hundred KiB.
const LARGEST: usize = 16 << 20;

/// Refuses what libvirt would not write.
pub(crate) fn check(xml: &str) -> Result<(), Error> {
    if xml.len() > LARGEST {
        return Err(Error::Unreadable(format!("{} bytes are too many", xml.len())));
    }
    // Entities are how a small document becomes a huge one, and how it reads files.
    if xml.contains("<!DOCTYPE") || xml.contains("<!ENTITY") {
        return Err(Error::Unreadable("it declares a document type".into()));
    }
    Ok(())
}

/// A parsed document.
pub(crate) struct Tree {
    xot: Xot,
    document: Node,
    /// The document's element.
    pub(crate) top: Node,
}

impl Tree {
    pub(crate) fn parse(xml: &str) -> Result<Tree, Error> {
        check(xml)?;
        let mut xot = Xot::new();
        let document = xot.parse(xml).map_err(|e| Error::Unreadable(e.to_string()))?;
        let top = xot.document_element(document).map_err(|e| Error::Unreadable(e.to_string()))?;
        Ok(Tree { xot, document, top })
    }

    pub(crate) fn write(&self) -> Result<String, Error> {
        self.xot.to_string(self.document).map_err(Error::Edit)
    }

    /// One element as a document.
    pub(crate) fn write_node(&self, node: Node) -> Result<String, Error> {
        self.xot.to_string(node).map_err(Error::Edit)
    }

    /// Local name of an element; empty for other nodes.
    pub(crate) fn name(&self, node: Node) -> &str {
        self.xot.element(node).map_or("", |element| self.xot.local_name_str(element.name()))
    }

    /// Namespace of an element; empty for none.
    pub(crate) fn namespace(&self, node: Node) -> &str {
        self.xot.element(node).map_or("", |element| self.xot.uri_str(element.name()))
    }

    pub(crate) fn children<'a>(&'a self, node: Node, name: &'a str) -> impl Iterator<Item = Node> + 'a {
        self.xot.children(node).filter(move |child| self.name(*child) == name && self.namespace(*child).is_empty())
    }

    pub(crate) fn elements(&self, node: Node) -> impl Iterator<Item = Node> + '_ {
        self.xot.children(node).filter(|child| self.xot.is_element(*child))
    }

    pub(crate) fn descendants<'a>(&'a self, node: Node, name: &'a str) -> impl Iterator<Item = Node> + 'a {
        self.xot.descendants(node).filter(move |child| self.name(*child) == name)
    }

    pub(crate) fn child(&self, node: Node, name: &str) -> Option<Node> {
        self.xot.children(node).find(|child| self.name(*child) == name && self.namespace(*child).is_empty())
    }

    /// The element at the end of a path of child names.
    pub(crate) fn at(&self, node: Node, path: &[&str]) -> Option<Node> {
        path.iter().try_fold(node, |node, name| self.child(node, name))
    }

    pub(crate) fn attribute(&self, node: Node, name: &str) -> Option<&str> {
        let name = self.xot.name(name)?;
        self.xot.get_attribute(node, name)
    }

    pub(crate) fn text(&self, node: Node) -> String {
        self.xot.children(node).filter_map(|child| self.xot.text_str(child)).collect::<String>().trim().to_owned()
    }

    /// Text of the element at the end of a path.
    pub(crate) fn text_at(&self, node: Node, path: &[&str]) -> Option<String> {
        self.at(node, path).map(|node| self.text(node))
    }

    pub(crate) fn set_attribute(&mut self, node: Node, name: &str, value: &str) -> Result<(), Error> {
        let value = carried(value)?.to_owned();
        let name = self.xot.add_name(name);
        self.xot.set_attribute(node, name, value);
        Ok(())
    }

    /// Appends a new element.
    pub(crate) fn append(&mut self, parent: Node, name: &str, attributes: &[(&str, &str)]) -> Result<Node, Error> {
        let name = self.xot.add_name(name);
        let child = self.xot.new_element(name);
        self.xot.append(parent, child).map_err(Error::Edit)?;
        for (name, value) in attributes {
            self.set_attribute(child, name, value)?;
        }
        Ok(child)
    }

    /// Appends a new element of a namespace, declared on it.
    pub(crate) fn append_in(&mut self, parent: Node, name: &str, prefix: &str, uri: &str) -> Result<Node, Error> {
        let namespace = self.xot.add_namespace(uri);
        let prefix = self.xot.add_prefix(prefix);
        let name = self.xot.add_name_ns(name, namespace);
        let child = self.xot.new_element(name);
        self.xot.set_namespace(child, prefix, namespace);
        self.xot.append(parent, child).map_err(Error::Edit)?;
        Ok(child)
    }

    /// Appends a document's element, under another name where one is given.
    pub(crate) fn append_document(&mut self, parent: Node, xml: &str, name: &str) -> Result<(), Error> {
        let other = self.xot.parse(xml).map_err(|e| Error::Unreadable(e.to_string()))?;
        let top = self.xot.document_element(other).map_err(|e| Error::Unreadable(e.to_string()))?;
        self.xot.detach(top).map_err(Error::Edit)?;
        let name = self.xot.add_name(name);
        if let Some(element) = self.xot.element_mut(top) {
            element.set_name(name);
        }
        self.xot.append(parent, top).map_err(Error::Edit)
    }

    /// The child of that name, made when it is not there.
    pub(crate) fn child_or_new(&mut self, parent: Node, name: &str) -> Result<Node, Error> {
        match self.child(parent, name) {
            Some(child) => Ok(child),
            None => self.append(parent, name, &[]),
        }
    }

    /// Replaces everything inside the element by a text.
    pub(crate) fn set_text(&mut self, node: Node, text: &str) -> Result<(), Error> {
        let text = carried(text)?.to_owned();
        let old: Vec<Node> = self.xot.children(node).collect();
        for child in old {
            self.xot.remove(child).map_err(Error::Edit)?;
        }
        self.xot.append_text(node, &text).map_err(Error::Edit)
    }

    pub(crate) fn remove(&mut self, node: Node) -> Result<(), Error> {
        self.xot.remove(node).map_err(Error::Edit)
    }
}

/// The text itself, when XML 1.0 can carry it (<https://www.w3.org/TR/xml/#charsets>) and a reader gives it back unchanged.
fn carried(text: &str) -> Result<&str, Error> {
    // A reader turns a carriage return into a line feed, and white space in attributes into blanks.
    let carries = |c: char| c >= ' ' && !matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}');
    if text.chars().all(carries) { Ok(text) } else { Err(Error::Unwritable(text.into())) }
}

//! Documents that are read and not changed, much faster than a [`crate::tree::Tree`]: of a machine with many snapshots each look reads all.

use crate::{Error, tree};
use roxmltree::{Document, Node};

/// Parses, under the same limits as a tree.
pub(crate) fn document(xml: &str) -> Result<Document<'_>, Error> {
    tree::check(xml)?;
    Document::parse(xml).map_err(|e| Error::Unreadable(e.to_string()))
}

pub(crate) fn children<'a, 'xml>(node: Node<'a, 'xml>, name: &'a str) -> impl Iterator<Item = Node<'a, 'xml>> + 'a {
    node.children().filter(move |child| child.tag_name().namespace().is_none() && child.tag_name().name() == name)
}

/// The element at the end of a path of child names.
pub(crate) fn at<'a, 'xml>(node: Node<'a, 'xml>, path: &[&'a str]) -> Option<Node<'a, 'xml>> {
    path.iter().try_fold(node, |node, name| children(node, name).next())
}

/// Text of the element at the end of a path.
pub(crate) fn text_at(node: Node<'_, '_>, path: &[&str]) -> Option<String> {
    let text =
        |node: Node<'_, '_>| node.children().filter(Node::is_text).filter_map(|child| child.text()).collect::<String>();
    at(node, path).map(|node| text(node).trim().to_owned())
}

//! Every reason that the code can give has its row in docs/troubleshooting.md, and no row is of one that it cannot. Reads the sources.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Crates whose words reach users.
const CRATES: [&str; 4] = ["agent", "controller", "plan", "shell"];
/// Words of theirs that look like reasons and are none: kinds, values, names of other things.
const OTHERS: &str = "ClusterRole Config Create Emulation Host HostModel HostPassthrough Maximum Nothing Opaque Orphan PCI Reconcile Remove \
                      Replace RoleBinding Secret ServiceAccount StoragePool StorageVolume Test True VirtualMachine";

#[test]
fn each_reason_is_explained_to_users() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut words = BTreeSet::new();
    for name in CRATES {
        collect(&root.join(name).join("src"), &mut words);
    }
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let explained = explained(&page);
    let others: BTreeSet<String> = OTHERS.split_whitespace().map(str::to_owned).collect();
    let known = &explained | &others;
    let (new, stale) = (&words - &known, &known - &words);
    assert!(new.is_empty(), "a row in docs/troubleshooting.md for each; what is no reason goes into OTHERS: {new:?}");
    assert!(stale.is_empty(), "no source says these any more; take them out: {stale:?}");
}

/// Strings of one CamelCase word in the sources below a directory, without their tests.
fn collect(directory: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, words);
        } else if !path.ends_with("tests.rs") {
            let source = fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            words.extend(code.flat_map(|line| line.split('"')).filter(|text| is_word(text)).map(str::to_owned));
        }
    }
}

/// What stands in backticks in the first cells of tables whose first column is headed `reason`.
fn explained(page: &str) -> BTreeSet<String> {
    let mut of_reasons = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        match line.strip_prefix("| ").and_then(|row| row.split(" |").next()) {
            None if line.starts_with('|') => {}
            None => of_reasons = false,
            Some("reason") => of_reasons = true,
            Some(cell) if of_reasons => found.extend(cell.split('`').filter(|text| is_word(text)).map(str::to_owned)),
            Some(_) => {}
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphabetic())
}

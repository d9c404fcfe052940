//! Who wrote what, from the API server's audit log. Does I/O.

use crate::Result;
use crate::run::Run;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// A place in the log: what comes after it is counted.
#[derive(Clone, Debug)]
pub struct Mark {
    log: PathBuf,
    at: u64,
}

/// A write that the API server took.
#[derive(Clone, Debug)]
pub struct Write {
    /// The user's name; among our own the account's, without what all have.
    pub by: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Plural, such as `virtualmachines`.
    pub resource: String,
    /// `status`, or empty.
    pub subresource: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// What was sent, for the kinds of which the log holds that.
    pub body: Value,
}

impl Mark {
    /// Here and now.
    ///
    /// # Errors
    /// When there is no log.
    pub fn now(run: &Run) -> Result<Mark> {
        let log = run.audit_log();
        Ok(Mark { at: log.metadata()?.len(), log })
    }

    /// Our writes since.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn writes(&self) -> Result<Vec<Write>> {
        let ours = |write: Write| {
            let by = write.by.strip_prefix("system:serviceaccount:virtfleet-")?.to_owned();
            Some(Write { by, ..write })
        };
        Ok(self.all()?.into_iter().filter_map(ours).collect())
    }

    /// Everybody's writes since.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn all(&self) -> Result<Vec<Write>> {
        let mut text = String::new();
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.at))?;
        file.read_to_string(&mut text)?;
        Ok(text.lines().filter_map(|line| write(&serde_json::from_str(line).ok()?)).collect())
    }
}

fn write(entry: &Value) -> Option<Write> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // What was refused, such as an apply on an old resourceVersion, changed nothing.
    let taken = entry["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
    let object = &entry["objectRef"];
    taken.then(|| Write {
        by: text(&entry["user"]["username"]),
        verb: text(&entry["verb"]),
        resource: text(&object["resource"]),
        subresource: text(&object["subresource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        body: entry["requestObject"].clone(),
    })
}

impl Write {
    /// Whether it is to that object.
    pub fn is_to(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.resource == resource && self.namespace == namespace && self.name == name
    }

    /// Whether it is an Event about that object.
    pub fn is_event_about(&self, kind: &str, name: &str) -> bool {
        self.resource == "events" && self.body["regarding"]["kind"] == kind && self.body["regarding"]["name"] == name
    }

    /// For a person: who wrote what.
    pub fn told(&self) -> String {
        let Write { by, verb, resource, subresource, namespace, name, body } = self;
        let slash = if subresource.is_empty() { "" } else { "/" };
        let said = match (&body["status"], resource.as_str()) {
            (_, "events") => format!("{} {}", body["reason"], body["note"]),
            (Value::Null, _) => String::new(),
            (status, _) => status.to_string(),
        };
        format!("{by}: {verb} {resource}{slash}{subresource} {namespace}/{name} {said}")
    }
}

/// Prints the writes of a count that is above its limit.
pub fn explain(what: &str, writes: &[&Write], limit: usize) {
    if writes.len() > limit {
        println!("-- {what}: {} writes", writes.len());
        writes.iter().for_each(|write| println!("   {}", write.told()));
    }
}

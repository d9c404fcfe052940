//! The CustomResourceDefinitions as they go into the chart: what the derive gives, and what it cannot say. Pure.

pub mod reference;
mod values;

use crate::{Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use kube::CustomResourceExt;
use kube::core::object::{HasSpec, HasStatus};
use schemars::{JsonSchema, schema_for};
use serde_json::{Value, json};

/// All kinds, in the order of their names, each definition finished: with the status default that makes an object nobody has looked at
/// "not current", with what each value of a field means, and without what the API server warns of or what would let `null` stand for
/// absent.
///
/// # Errors
/// When a definition cannot be serialized.
pub fn all() -> Result<Vec<Value>, serde_json::Error> {
    Ok(vec![
        finished::<Host>()?,
        finished::<Snapshot>()?,
        finished::<StoragePool>()?,
        finished::<StorageVolume>()?,
        finished::<VirtualMachine>()?,
    ])
}

fn finished<K>() -> Result<Value, serde_json::Error>
where
    K: CustomResourceExt + HasSpec + HasStatus,
    K::Spec: JsonSchema,
    K::Status: JsonSchema,
{
    let mut value = serde_json::to_value(K::crd())?;
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy(schema);
        values::explain(&mut schema["properties"]["spec"], schema_for!(K::Spec).as_value());
        values::explain(&mut schema["properties"]["status"], schema_for!(K::Status).as_value());
        default_status(schema);
        label_name(schema);
        describe(schema);
    }
    Ok(value)
}

/// What stands above a kind's spec is what `kubectl explain` says of the kind.
fn describe(schema: &mut Value) {
    schema["description"] = schema["properties"]["spec"]["description"].take();
    schema["properties"]["spec"]["description"] = json!("What is asked for.");
}

/// kstatus takes an object without status as current; -1 equals no generation, so it waits
/// (`kstatus/status/generic.go` of cli-utils).
fn default_status(schema: &mut Value) {
    if let Some(status) = schema.pointer_mut("/properties/status") {
        status["default"] = json!({});
        status["properties"]["observedGeneration"]["default"] = json!(-1);
    }
}

/// Names become domain and file names with a dot between namespace and name: a DNS label. (A CEL rule on the name costs more than the
/// API server allows.)
fn label_name(schema: &mut Value) {
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}},
    });
}

/// Takes out `nullable` (an absent field is absent), number formats other than int32 and int64, which the API server does not know, and
/// the ends of lines within the paragraphs of descriptions.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            if fields.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
                fields.remove("format");
            }
            if let Some(Value::String(description)) = fields.get_mut("description") {
                *description = unwrapped(description);
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(tidy);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn unwrapped(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

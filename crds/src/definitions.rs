//! The CustomResourceDefinitions as they go into the chart: what the derive gives, and what it cannot say. Pure.

use crate::{Host, Snapshot, StoragePool, StorageVolume, VirtualMachine};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// All kinds, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![Host::crd(), Snapshot::crd(), StoragePool::crd(), StorageVolume::crd(), VirtualMachine::crd()]
}

/// A definition as JSON, finished: with the status default that makes an object nobody has looked at "not current", and without
/// what the API server warns of or what would let `null` stand for absent.
///
/// # Errors
/// When the definition cannot be serialized or has no status.
pub fn finished(definition: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(definition)?;
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                tidy(schema);
                default_status(schema);
                label_name(schema);
            }
        }
    }
    Ok(value)
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

/// Takes out `nullable` (an absent field is absent) and number formats other than int32 and int64, which the API server does not know.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            if fields.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
                fields.remove("format");
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

//! What each value of a field means: the derive keeps the values of an enum and drops what is written above them. Pure.

use serde_json::Value;

/// Appends to the description of each field with a choice of values what each value means; `types`: the JSON schema of the same type,
/// with its enums under `$defs`.
pub fn explain(schema: &mut Value, types: &Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| explain(field, types));
            let Some(values) = fields.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()) else {
                return;
            };
            let own = fields.get("description").and_then(Value::as_str).unwrap_or_default();
            let lines: Vec<_> = meanings(values, types).collect();
            if !lines.is_empty() {
                let explained = format!("{own}\n\n{}", lines.join("\n"));
                fields.insert("description".into(), explained.trim_start().into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| explain(item, types)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A line for each value, of the one enum with these values.
fn meanings<'a>(values: &'a [Value], types: &'a Value) -> impl Iterator<Item = String> + 'a {
    let enums =
        types["$defs"].as_object().into_iter().flat_map(|all| all.values()).filter_map(|one| one["oneOf"].as_array());
    let same = move |variants: &&Vec<Value>| variants.iter().map(|variant| &variant["const"]).eq(values);
    let variants = enums.filter(same).take(1).flatten();
    variants.filter_map(|variant| {
        Some(format!(" - `{}`: {}", variant["const"].as_str()?, variant["description"].as_str()?.replace('\n', " ")))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::definitions::all;
    use crate::*;
    use schemars::schema_for;
    use std::collections::BTreeSet;

    #[test]
    fn each_value_of_each_field_is_explained() {
        fn look(schema: &Value) {
            for value in schema["enum"].as_array().into_iter().flatten() {
                let line = format!(" - `{}`: ", value.as_str().unwrap());
                assert!(schema["description"].as_str().unwrap().contains(&line), "{schema}");
            }
            schema.as_object().into_iter().flat_map(|fields| fields.values()).for_each(look);
        }
        all().unwrap().iter().for_each(|definition| look(&definition["spec"]["versions"][0]["schema"]));
    }

    /// An enum is known by its values alone.
    #[test]
    fn no_two_enums_of_a_type_have_the_same_values() {
        for types in [
            schema_for!(HostSpec),
            schema_for!(HostStatus),
            schema_for!(SnapshotSpec),
            schema_for!(SnapshotStatus),
            schema_for!(StoragePoolSpec),
            schema_for!(StoragePoolStatus),
            schema_for!(StorageVolumeSpec),
            schema_for!(StorageVolumeStatus),
            schema_for!(VirtualMachineSpec),
            schema_for!(VirtualMachineStatus),
        ] {
            let mut known = BTreeSet::new();
            for one in types.as_value()["$defs"].as_object().into_iter().flat_map(|all| all.values()) {
                let Some(variants) = one["oneOf"].as_array() else { continue };
                let values: Vec<_> = variants.iter().map(|variant| variant["const"].to_string()).collect();
                assert!(known.insert(values), "{one}");
            }
        }
    }
}

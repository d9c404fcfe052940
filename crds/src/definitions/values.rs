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

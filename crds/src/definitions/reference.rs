//! The definitions as a page for users: each field of each kind in a table. Pure.

use serde_json::{Map, Value};

const HEAD: &str = "\
<!-- Written by crdgen (make generate); do not edit. -->
# Reference

Each field of each kind of `virtfleet.dev/v1alpha1`, as `kubectl explain` tells them too. `spec` is yours, `status` is written by Virtfleet
alone. `disks[].name` is field `name` of each item of list `disks`. A *choice* is one of the values that are explained beside it; a *quantity*
is a number with or without a unit, such as `2Gi`, `500M` or `1.5`. A field without a default may be left out, unless it is *required*; what
is *fixed* cannot be changed later. Sentences in italics are the API server's answer to who breaks that rule. Names of all kinds are DNS
labels: up to 63 lower case letters, digits and `-`.

Annotations and labels stand in [machines](machines.md#annotations-and-labels), the reasons of conditions in
[troubleshooting](troubleshooting.md).
";

/// The whole page, in Markdown, of finished definitions.
pub fn page(definitions: &[Value]) -> String {
    definitions.iter().fold(HEAD.to_owned(), |page, definition| page + &kind(&definition["spec"]))
}

fn kind(definition: &Value) -> String {
    let names = &definition["names"];
    let version = &definition["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let (spec, status) = (&schema["properties"]["spec"], &schema["properties"]["status"]);
    let short: Vec<_> = list(&names["shortNames"]).map(code).collect();
    let scope = if definition["scope"] == "Namespaced" { "In a namespace" } else { "For the whole cluster" };
    let columns: Vec<_> = list(&version["additionalPrinterColumns"]).map(column).collect();
    let selectable: Vec<_> = list(&version["selectableFields"]).map(|field| code(&field["jsonPath"])).collect();
    let mut page = format!("\n## {}\n{}\n\n", text(&names["kind"]), text(&schema["description"]));
    page += &format!("{scope}; {} or, in short, {}. ", code(&names["plural"]), short.join(", "));
    page += &format!("`kubectl get` shows {}", columns.join(", "));
    page += &match selectable.is_empty() {
        true => ".\n".to_owned(),
        false => format!("; `--field-selector` knows {}.\n", selectable.join(", ").replace("`.", "`")),
    };
    for rule in messages(schema, None).chain(messages(spec, None)) {
        page += &format!("\n{rule}\n");
    }
    page += "\n### spec\n| field | type | default | meaning |\n|---|---|---|---|\n";
    rows(spec, "", &mut |field| {
        page += &format!("| `{}` | {} | {} | {} |\n", field.path, field.type_(), field.default(), field.meaning())
    });
    page += "\n### status\n| field | type | meaning |\n|---|---|---|\n";
    rows(status, "", &mut |field| {
        page += &format!("| `{}` | {} | {} |\n", field.path, field.type_(), cell(text(&field.schema["description"])))
    });
    page
}

fn column(column: &Value) -> String {
    let wide = if column["priority"].as_i64().unwrap_or_default() > 0 { " (with `-o wide`)" } else { "" };
    format!("{}{wide}", text(&column["name"]))
}

/// A field, in its parent.
struct Field<'a> {
    path: String,
    name: &'a str,
    parent: &'a Value,
    schema: &'a Value,
}

/// Calls `row` for each field below the object, a field before its own fields.
fn rows(parent: &Value, prefix: &str, row: &mut impl FnMut(&Field<'_>)) {
    for (name, schema) in parent["properties"].as_object().into_iter().flatten() {
        let (suffix, inner) = if schema["type"] == "array" { ("[]", &schema["items"]) } else { ("", schema) };
        let path = format!("{prefix}{name}{suffix}");
        row(&Field { path: path.clone(), name, parent, schema });
        if foreign(inner).is_none() {
            rows(inner, &format!("{path}."), row);
        }
    }
}

/// Kubernetes' own types are explained by Kubernetes.
fn foreign(schema: &Value) -> Option<&'static str> {
    let has = |name: &str| schema["properties"].get(name).is_some();
    if has("matchExpressions") {
        Some(
            "[label selector](https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements)",
        )
    } else if has("lastTransitionTime") {
        Some("[condition](troubleshooting.md)")
    } else {
        None
    }
}

impl Field<'_> {
    fn type_(&self) -> String {
        let schema = self.schema;
        if schema["type"] != "array" {
            return type_of(schema).to_owned();
        }
        let keys: Vec<_> = list(&schema["x-kubernetes-list-map-keys"]).map(code).collect();
        let by = if keys.is_empty() { String::new() } else { format!(", by {}", keys.join(", ")) };
        format!("list of {}{by}", type_of(&schema["items"]))
    }

    fn default(&self) -> String {
        let required = list(&self.parent["required"]).any(|name| name == self.name);
        let fixed = rules(self.schema, None).chain(rules(self.parent, Some(self.name))).any(fixes);
        let default = match &self.schema["default"] {
            _ if required => "required".to_owned(),
            // Its fields tell their own.
            Value::Null | Value::Object(Map { .. }) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        [default, if fixed { "fixed".to_owned() } else { String::new() }]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn meaning(&self) -> String {
        let own = text(&self.schema["description"]).to_owned();
        let rules = messages(self.schema, None)
            .chain(messages(self.parent, Some(self.name)))
            .chain(messages(&self.schema["items"], None));
        cell(&[own].into_iter().chain(limits(self.schema)).chain(rules).collect::<Vec<_>>().join("\n"))
    }
}

fn type_of(schema: &Value) -> &str {
    if let Some(known) = foreign(schema) {
        return known;
    }
    match text(&schema["type"]) {
        _ if schema.get("x-kubernetes-int-or-string").is_some() => "quantity",
        _ if schema.get("enum").is_some() => "choice",
        _ if schema["format"] == "date-time" => "time",
        "object" if schema["additionalProperties"] == false => "`{}`",
        "object" if schema.get("additionalProperties").is_some() => "map",
        other => other,
    }
}

fn limits(schema: &Value) -> Option<String> {
    let number = |name: &str| schema[name].as_f64();
    match (number("minimum"), number("maximum"), number("maxItems"), number("maxLength")) {
        (Some(low), Some(high), _, _) => Some(format!("From {low} to {high}.")),
        (_, _, Some(most), _) => Some(format!("At most {most} items.")),
        (_, _, _, Some(most)) => Some(format!("At most {most} characters.")),
        _ => None,
    }
}

/// The rules of an object: those that blame one of its fields, or those that blame none.
fn rules<'a>(schema: &'a Value, blamed: Option<&'a str>) -> impl Iterator<Item = &'a Value> {
    let blames = move |rule: &&Value| rule["fieldPath"].as_str().map(|path| path.trim_start_matches('.')) == blamed;
    list(&schema["x-kubernetes-validations"]).filter(blames)
}

/// Whether a rule lets a field be set only once.
fn fixes(rule: &Value) -> bool {
    text(&rule["rule"]).contains("oldSelf") && text(&rule["message"]).contains("cannot be changed")
}

/// What the API server answers to who breaks a rule; that a field is fixed stands beside it anyway.
fn messages<'a>(schema: &'a Value, blamed: Option<&'a str>) -> impl Iterator<Item = String> + 'a {
    rules(schema, blamed)
        .filter(|rule| !fixes(rule))
        .filter_map(|rule| rule["message"].as_str())
        .map(|message| format!("*{}*", message.replace('<', "&lt;").replace('*', "\\*")))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn code(value: &Value) -> String {
    format!("`{}`", text(value))
}

/// Text for one cell of a table.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|").replace("\n\n", "\n").replace("\n - ", "\n");
    text.replace('\n', "<br>")
}

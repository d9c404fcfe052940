//! Writes each CustomResourceDefinition as a chart template into the directory that is its one argument.

use crds::definitions;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: crdgen DIRECTORY")?);
    std::fs::create_dir_all(&directory)?;
    for definition in definitions::all() {
        let mut value = definitions::finished(&definition)?;
        // Uninstalling the chart must not delete every object (and with it ask for every teardown).
        value["metadata"]["annotations"] = serde_json::json!({ "helm.sh/resource-policy": "keep" });
        let file = directory.join(format!("{}.yaml", definition.spec.names.plural));
        std::fs::write(
            file,
            format!("# Written by crdgen (make generate); do not edit.\n{}", serde_yaml_ng::to_string(&value)?),
        )?;
    }
    Ok(())
}

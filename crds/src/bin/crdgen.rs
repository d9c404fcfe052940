//! Writes each CustomResourceDefinition as a chart template into a directory, and the page that explains all their fields into a file.

use crds::definitions;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(directory), Some(page)) = (arguments.next(), arguments.next()) else {
        return Err("usage: crdgen DIRECTORY PAGE".into());
    };
    std::fs::create_dir_all(&directory)?;
    let mut definitions = definitions::all()?;
    std::fs::write(page, definitions::reference::page(&definitions))?;
    for definition in &mut definitions {
        // Uninstalling the chart must not delete every object (and with it ask for every teardown).
        definition["metadata"]["annotations"] = serde_json::json!({ "helm.sh/resource-policy": "keep" });
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let file = directory.join(format!("{plural}.yaml"));
        std::fs::write(
            file,
            format!("# Written by crdgen (make generate); do not edit.\n{}", serde_yaml_ng::to_string(&definition)?),
        )?;
    }
    Ok(())
}

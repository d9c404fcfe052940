//! Commands in a test guest, through QEMU's guest agent. Does I/O.

use crate::Result;
use crate::story::{Story, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

impl Story {
    /// What a shell command prints in the guest, once its agent answers.
    pub async fn in_guest(&self, host: &str, vm: &str, command: &str) -> String {
        let arguments = json!({"path": "/bin/sh", "arg": ["-c", command], "capture-output": true});
        let begun =
            until(&format!("{command:?} in {vm}"), async || self.agent(host, vm, "guest-exec", &arguments)).await;
        let pid = json!({"pid": begun["pid"]});
        let ended = until(&format!("the end of {command:?} in {vm}"), async || -> Result<Value> {
            let status = self.agent(host, vm, "guest-exec-status", &pid)?;
            if status["exited"] == json!(true) { Ok(status) } else { Err("it runs".into()) }
        })
        .await;
        let output = ended["out-data"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    }

    fn agent(&self, host: &str, vm: &str, execute: &str, arguments: &Value) -> Result<Value> {
        let command = json!({"execute": execute, "arguments": arguments}).to_string();
        let answer = self.virsh(host, &["qemu-agent-command", &self.domain_name(vm), &command])?;
        Ok(serde_json::from_str::<Value>(&answer)?["return"].clone())
    }
}

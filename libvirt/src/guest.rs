//! Questions that go past libvirt, to the guest's agent and to QEMU itself.

use crate::Libvirt;
use crate::error::{Error, Kind, Result};
use crate::lane::Lane;
use std::time::Duration;
use virt::connect::Connect;

impl Libvirt {
    /// Sends a command to the guest agent; its answer is the guest's word, capped at 1 MiB.
    pub async fn agent_command(&self, uuid: &str, command: &'static str) -> Result<String> {
        const ACT: &str = "virDomainQemuAgentCommand";
        const SECONDS: i32 = 5;
        let uuid = uuid.to_owned();
        let call = move |connect: &Connect| {
            connect.lookup_domain_by_uuid_string(&uuid)?.qemu_agent_command(command, SECONDS, 0)
        };
        let answer = self.lanes.run(Lane::Agents, ACT, Duration::from_secs(SECONDS as u64 + 2), call).await?;
        if answer.len() > 1 << 20 {
            return Err(Error::new(ACT, Kind::Invalid, "the guest agent's answer is too long"));
        }
        Ok(answer)
    }

    /// What QEMU says of a running domain's block devices (QMP `query-block`): JSON. libvirt notes in its log and in the domain's state
    /// that somebody spoke to QEMU past it (`custom-monitor`): only for what libvirt itself does not know.
    pub async fn qemu_block_devices(&self, uuid: &str) -> Result<String> {
        let uuid = uuid.to_owned();
        let call = move |connect: &Connect| {
            let domain = connect.lookup_domain_by_uuid_string(&uuid)?;
            domain.qemu_monitor_command(r#"{"execute":"query-block"}"#, 0)
        };
        self.step("virDomainQemuMonitorCommand", self.lanes.settings().call, call).await
    }
}

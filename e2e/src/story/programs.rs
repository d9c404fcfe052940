//! The bed's programs as stories treat them: killed, ended, kept away, back again. Sends signals to none but those that the bed's keeper started.

use super::{Story, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::Duration;

/// How long a story takes a program away: what `AWAY` says, in seconds, else what is long enough for each run.
pub fn length_of_absence(usual: Duration) -> Duration {
    let told = std::env::var("AWAY").ok().and_then(|seconds| seconds.parse().ok());
    told.map_or(usual, Duration::from_secs)
}

impl Story {
    /// Process id of one of the bed's programs.
    pub fn pid(&self, program: &str) -> Option<i32> {
        fs::read_to_string(self.run.pid_file(program)).ok()?.parse().ok()
    }

    /// Kills one of the bed's programs; it comes back by itself.
    pub fn kill(&self, program: &str) {
        if let Some(pid) = self.pid(program).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Asks one of the bed's programs to end, as a restart of its service does; it comes back by itself.
    pub fn end_program(&self, program: &str) {
        if let Some(pid) = self.pid(program).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Kills a program and keeps it down until it is released.
    pub fn hold(&self, program: &str) {
        fs::write(self.run.hold_file(program), "").unwrap_or_else(|error| panic!("{error}"));
        self.kill(program);
    }

    /// Asks a program to end and keeps it down until it is released.
    pub fn stop(&self, program: &str) {
        fs::write(self.run.hold_file(program), "").unwrap_or_else(|error| panic!("{error}"));
        self.end_program(program);
    }

    /// Lets a held program come back.
    pub fn release(&self, program: &str) {
        fs::remove_file(self.run.hold_file(program)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until a program that was killed runs again as another process.
    pub async fn back(&self, program: &str, before: Option<i32>) {
        until(&format!("{program} again"), async || {
            let now = self.pid(program).filter(|pid| Some(*pid) != before);
            now.map(|_| ()).ok_or("not yet")
        })
        .await;
    }

    /// Identity of the controller that leads; empty when none does.
    pub async fn leader(&self) -> String {
        let leases = Api::<Lease>::namespaced(self.client.clone(), "virtfleet-system");
        let lease = leases.get("virtfleet-controller").await.unwrap_or_else(|error| panic!("{error}"));
        lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
    }

    /// Waits until the bed's own controller leads.
    pub async fn controller_leads(&self) {
        until("the bed's own controller to lead", async || {
            let now = self.leader().await;
            let pid = self.pid("controller").map(|pid| format!("-{pid}-")).unwrap_or_default();
            now.contains(&pid).then_some(()).ok_or(now)
        })
        .await;
    }
}

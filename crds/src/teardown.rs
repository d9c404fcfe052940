//! How an object's deletion is carried out: the controller decides, the bound host's agent does it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of the things on the host when the object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TeardownPolicy {
    /// They go: the guest is shut down and undefined, the file removed, the snapshot merged.
    Delete,
    /// They stay as they are, without Virtfleet's mark.
    Orphan,
    /// Data stays; only what holds none is undefined.
    Retain,
    /// Nothing is touched, not even marks: a new object of the same name takes it back.
    Keep,
}

/// A teardown under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Teardown {
    /// UID of the object that is torn down. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// What becomes of the things on the host. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<TeardownPolicy>,
    /// UID for which the host has finished. Written by the host's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
}

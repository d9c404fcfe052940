//! All decisions: what a manifest means, what to do next, what to report, where to place. Pure: no client, clock, environment or I/O;
//! the list of this crate's dependencies is the proof.

pub mod names;
pub mod placement;
pub mod snapshot;
pub mod storage_pool;
pub mod storage_volume;
pub mod teardown;
pub mod virtual_machine;

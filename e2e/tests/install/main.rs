//! What an administrator does with Virtfleet on a real cluster, with a kubelet and the chart's own pods, and what becomes of guests:
//! one file a story. `e2e/suite.sh` brings the bed up; the stories run one after another, each from whatever the one before left.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod first_guest;
mod fleet;
mod node_silent;
mod uninstalled;
mod unit_booted;
mod upgraded;

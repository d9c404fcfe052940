//! What users do and what becomes of it, on a real API server, real libvirtd and real guests: one file a story. `e2e/suite.sh` brings
//! the bed up.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod agent_killed;
mod api_rules;
mod api_server_gone;
mod bad_starts;
mod controller_killed;
mod crds_deleted;
mod create_and_boot;
mod examples;
mod foreign_domain;
mod full_disk;
mod growth;
mod guest_stops_itself;
mod history_restored;
mod host_deleted;
mod host_lost;
mod hung_guests;
mod identity;
mod idle_fleet;
mod imports;
mod killed_at_work;
mod killed_from_outside;
mod libvirtd_restarted;
mod live_disks;
mod no_host_fits;
mod nodes;
mod orphaned;
mod pools;
mod probes;
mod renamed;
mod rights;
mod same_second;
mod snapshot_atomic;
mod snapshot_deleted;
mod snapshot_foreign;
mod snapshot_killed;
mod snapshot_libvirtd;
mod snapshot_methods;
mod snapshot_orders;
mod snapshot_whole;
mod status_wiped;
mod stop_and_start;
mod template_volume;
mod two_controllers;
mod two_writers;

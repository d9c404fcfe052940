//! Counters for `/metrics`, in the words of the Prometheus conventions.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

/// A binary's counters.
pub struct Metrics {
    registry: Registry,
    passes: Family<Pass, Counter>,
    writes: Family<Write, Counter>,
    calls: Family<Call, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pass {
    kind: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("virtfleet");
        let (passes, writes, calls) = (Family::default(), Family::default(), Family::default());
        registry.register("reconcile", "Passes over an object, by kind and result", passes.clone());
        registry.register("api_writes", "Writes to the API server, by kind", writes.clone());
        registry.register("libvirt_calls", "Calls of libvirt since the start, by function", calls.clone());
        Metrics { registry, passes, writes, calls }
    }
}

impl Metrics {
    /// Counts a pass.
    pub fn pass(&self, kind: &str, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.passes.get_or_create(&Pass { kind: kind.to_lowercase(), result }).inc();
    }

    /// Counts a write to the API server.
    pub fn write(&self, kind: &str) {
        self.writes.get_or_create(&Write { kind: kind.to_lowercase() }).inc();
    }

    /// The text for `/metrics`; `calls`: how often each function of libvirt was called.
    pub fn text(&self, calls: &BTreeMap<&'static str, u64>) -> String {
        for (call, count) in calls {
            self.calls.get_or_create(&Call { call }).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(error) => format!("# {error}\n"),
        }
    }
}

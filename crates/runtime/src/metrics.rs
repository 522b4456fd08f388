//! What is counted, beside the operations that count it (Prometheus; base units in the names).

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use palisade_protocol::item::TurnOutcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tool {
    tool: &'static str,
}

/// The runtime's metrics and their registry, to which the gateway adds its own.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: std::sync::Mutex<Registry>,
    turns_started: Counter,
    turns_ended: Family<Outcome, Counter>,
    turns_running: Gauge,
    model_calls: Family<Model, Counter>,
    tool_calls: Family<Tool, Counter>,
    sandboxes_started: Counter,
    sandboxes_awake: Gauge<i64, AtomicI64>,
}

/// The names that may become a label; what a model makes up may not.
const TOOLS: [&str; 8] = ["Bash", "Read", "Write", "Edit", "Glob", "Grep", "Skill", "TodoWrite"];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("palisade");
        let inner = Inner {
            turns_started: Counter::default(),
            turns_ended: Family::default(),
            turns_running: Gauge::default(),
            model_calls: Family::default(),
            tool_calls: Family::default(),
            sandboxes_started: Counter::default(),
            sandboxes_awake: Gauge::default(),
            registry: std::sync::Mutex::new(Registry::default()),
        };
        registry.register("turns_started", "Turns that were started", inner.turns_started.clone());
        registry.register("turns_ended", "Turns that ended, by outcome", inner.turns_ended.clone());
        registry.register("turns_running", "Turns that run now", inner.turns_running.clone());
        registry.register(
            "model_calls",
            "Model calls, by model and by how they ended",
            inner.model_calls.clone(),
        );
        registry.register("tool_calls", "Tool calls, by tool", inner.tool_calls.clone());
        registry.register(
            "sandboxes_started",
            "Sandboxes that were started",
            inner.sandboxes_started.clone(),
        );
        registry.register("sandboxes_awake", "Sandboxes that are awake now", inner.sandboxes_awake.clone());
        let inner = Inner { registry: std::sync::Mutex::new(registry), ..inner };
        Self { inner: Arc::new(inner) }
    }
}

impl Metrics {
    /// Lets another room register what it counts.
    pub fn with_registry<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        // A registry is whole after any panic, so a poisoned lock is still good.
        with(&mut self.inner.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(crate) fn turn_started(&self) {
        self.inner.turns_started.inc();
    }

    pub(crate) fn turn_ended(&self, outcome: TurnOutcome) {
        let outcome = match outcome {
            TurnOutcome::Completed => "completed",
            TurnOutcome::Cancelled => "cancelled",
            TurnOutcome::Failed => "failed",
        };
        self.inner.turns_ended.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn model_called(&self, model: &str) {
        self.inner.model_calls.get_or_create(&Model { model: model.to_owned(), code: "started" }).inc();
    }

    pub(crate) fn model_failed(&self, model: &str, code: &'static str) {
        self.inner.model_calls.get_or_create(&Model { model: model.to_owned(), code }).inc();
    }

    pub(crate) fn tool_called(&self, name: &str) {
        let name = palisade_agent::tools::name_of(name);
        let tool = TOOLS.into_iter().find(|known| Some(*known) == name).unwrap_or("other");
        self.inner.tool_calls.get_or_create(&Tool { tool }).inc();
    }

    pub(crate) fn sandbox_started(&self) {
        self.inner.sandboxes_started.inc();
    }

    pub(crate) fn observe(&self, turns: usize, sandboxes: usize) {
        self.inner.turns_running.set(i64::try_from(turns).unwrap_or(i64::MAX));
        self.inner.sandboxes_awake.set(i64::try_from(sandboxes).unwrap_or(i64::MAX));
    }
}

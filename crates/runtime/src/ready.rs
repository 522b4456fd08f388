//! Whether the parts that a turn needs work: asked by `/ready` and answered from a recent look.

use serde::Serialize;

use crate::Runtime;

/// The state of each part.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// Every part works.
    pub ready: bool,
    /// The database.
    pub store: PartState,
    /// A cage can be made.
    pub sandbox: PartState,
    /// The egress proxy answers: without it nothing leaves, model calls neither.
    pub egress: PartState,
    /// The catalog has a model for every tenant.
    pub models: PartState,
    /// The disk has room for the server itself.
    pub storage: PartState,
}

/// One part.
#[derive(Debug, Clone, Serialize)]
pub struct PartState {
    /// Whether it works.
    pub ok: bool,
    /// What is wrong and how to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl PartState {
    fn of<E: std::fmt::Display>(result: Result<(), E>) -> Self {
        Self { ok: result.is_ok(), problem: result.err().map(|error| error.to_string()) }
    }
}

impl Runtime {
    /// Looks at every part. The sandbox is really started, at most once in ten seconds.
    pub async fn readiness(&self) -> Readiness {
        let store = PartState::of(self.rooms.store.ping().await);
        let sandbox = match self.rooms.probe.ask(&self.rooms.sandboxes).await {
            true => Ok(()),
            // Any tenant's key may ask, so where things lie on the host stays in the log.
            false => Err("sandboxes cannot be started; the server's log has the cause"),
        };
        let sandbox = PartState::of(sandbox);
        let egress = self.rooms.way_out.answers().await;
        if let Err(error) = &egress {
            tracing::error!(error = %palisade_protocol::chain(error), "the egress proxy does not answer");
        }
        let egress = PartState::of(
            egress.map_err(|_| "the egress proxy does not answer; the server's log has the cause"),
        );
        let missing = self
            .rooms
            .live()
            .tenants
            .values()
            .find(|tenant| self.rooms.router.catalog().model(&tenant.config.default_model).is_none())
            .map(|tenant| {
                format!("tenant {} has no model {:?}", tenant.config.name, tenant.config.default_model)
            });
        let models = PartState::of(missing.map_or(Ok(()), Err));
        let is_low = crate::storage::is_disk_low(&self.rooms).await;
        let storage = PartState::of(if is_low { Err("the server's disk is full") } else { Ok(()) });
        let ready = store.ok && sandbox.ok && egress.ok && models.ok && storage.ok;
        Readiness { ready, store, sandbox, egress, models, storage }
    }
}

/// Remembers what the last look at the sandbox found.
#[derive(Default)]
pub(crate) struct Probe {
    last: tokio::sync::Mutex<Option<(std::time::Instant, bool)>>,
}

/// How long a look at the sandbox counts.
const PROBE_FRESH: std::time::Duration = std::time::Duration::from_secs(10);

impl Probe {
    async fn ask(&self, sandboxes: &palisade_sandbox::SandboxFactory) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, works)) = &*last
            && at.elapsed() < PROBE_FRESH
        {
            return *works;
        }
        let result = palisade_sandbox::probe(sandboxes).await;
        if let Err(error) = &result {
            tracing::error!(error = %palisade_protocol::chain(error), "sandboxes cannot be started");
        }
        *last = Some((std::time::Instant::now(), result.is_ok()));
        result.is_ok()
    }
}

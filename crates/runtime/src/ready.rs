//! Whether the parts that a turn needs work: asked by `/ready` and answered from a recent look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use palisade_egress::WayOut;
use palisade_inference::Upstream;
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
    /// The catalog has a model for every tenant, and some upstream of it can be reached.
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
        let models = self.models_state().await;
        let is_low = crate::storage::is_disk_low(&self.rooms).await;
        let storage = PartState::of(if is_low { Err("the server's disk is full") } else { Ok(()) });
        let ready = store.ok && sandbox.ok && egress.ok && models.ok && storage.ok;
        Readiness { ready, store, sandbox, egress, models, storage }
    }
}

impl Runtime {
    /// Every tenant's own model is there, and some upstream of it can be reached. An upstream that cannot, while another does its work,
    /// is told and no reason to be unready.
    async fn models_state(&self) -> PartState {
        let (rooms, live) = (&self.rooms, self.rooms.live());
        let catalog = rooms.router.catalog();
        let mut upstreams: Vec<_> = catalog.models().flat_map(|model| model.upstreams.iter()).collect();
        upstreams.sort_by(|a, b| a.name.cmp(&b.name));
        upstreams.dedup_by(|a, b| a.name == b.name);
        let away = match rooms.demo_planner {
            // It is in this process.
            true => Vec::new(),
            false => rooms.upstreams.away(&rooms.way_out, upstreams).await,
        };
        for tenant in live.tenants.values() {
            let (name, wanted) = (&tenant.config.name, &tenant.config.default_model);
            let Some(model) = catalog.model(wanted) else {
                return PartState::of(Err(format!("tenant {name} has no model {wanted:?}")));
            };
            if model.upstreams.iter().all(|upstream| away.contains(&upstream.name)) {
                return PartState::of(Err(format!(
                    "no upstream of model {wanted:?} can be reached ({})",
                    away.join(", ")
                )));
            }
        }
        let problem = (!away.is_empty())
            .then(|| format!("cannot be reached, others do their work: {}", away.join(", ")));
        PartState { ok: true, problem }
    }
}

/// How long an upstream may take to be reached.
const REACH_MAX: std::time::Duration = std::time::Duration::from_secs(3);
/// How long a look at an upstream counts that could be reached, and at one that could not.
const REACHED_FRESH: std::time::Duration = std::time::Duration::from_secs(30);
const AWAY_FRESH: std::time::Duration = std::time::Duration::from_secs(3);

/// Remembers what the last looks at the upstreams found.
#[derive(Default)]
pub(crate) struct UpstreamProbes {
    last: tokio::sync::Mutex<HashMap<String, (Instant, bool)>>,
}

impl UpstreamProbes {
    /// The names of those that cannot be reached. A look costs a connection and no token.
    async fn away(&self, way_out: &WayOut, upstreams: Vec<&Arc<Upstream>>) -> Vec<String> {
        // Held, so that of many who ask one looks.
        let mut last = self.last.lock().await;
        let looks = upstreams.into_iter().map(|upstream| {
            let known = last.get(&upstream.name).copied();
            async move {
                let is_fresh = |(at, is_there): (Instant, bool)| {
                    at.elapsed() < if is_there { REACHED_FRESH } else { AWAY_FRESH }
                };
                if let Some(known) = known.filter(|known| is_fresh(*known)) {
                    return (upstream.name.clone(), known);
                }
                let reached = tokio::time::timeout(REACH_MAX, way_out.reaches(&upstream.url)).await;
                if let Ok(Some(Err(reason))) = reached {
                    tracing::warn!(
                        upstream = upstream.name,
                        reason = reason.code(),
                        "an upstream cannot be reached"
                    );
                }
                let is_there = matches!(reached, Ok(None | Some(Ok(()))));
                (upstream.name.clone(), (Instant::now(), is_there))
            }
        });
        let looks = futures_util::future::join_all(looks).await;
        *last = looks.into_iter().collect();
        let mut away: Vec<String> =
            last.iter().filter(|(_, (_, is_there))| !is_there).map(|(name, _)| name.clone()).collect();
        away.sort_unstable();
        away
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

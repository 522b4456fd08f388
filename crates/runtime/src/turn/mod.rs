//! The supervisor: one task per running turn, which asks the agent what comes next and does it, step by durable
//! step. A turn is never driven by the request that started it, so it does not matter who listens.

mod answer;
mod client_tool;
mod end;
mod log;
mod metered;
mod model;
mod registry;
mod reopen;
mod told;
mod tool;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use palisade_agent::Step;
use palisade_protocol::money::CreditMode;
use palisade_protocol::{Error, Event, Item, Session, TenantName, ToolOutput, TurnId, Usage};
use palisade_sandbox::SandboxSpec;
use palisade_store::StoreError;
use palisade_workspace::Homes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Rooms;
use crate::clock::now;
use crate::share::Share;
use crate::skills::SessionKeep;
use crate::storage::Storage;
use crate::tenant::Tenant;
pub(crate) use end::{Ending, Said, cancelled, failed};
use log::TurnLog;
pub(crate) use registry::{Listed, Turns};

/// How long a cancel waits for the sandbox to end the turn's processes, before the sandbox itself is ended.
const CANCEL_WAIT_MAX: Duration = Duration::from_millis(700);
/// How long a running tool may go on once the server drains: its outcome would be unknown otherwise.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// A turn to be driven.
pub(crate) struct TurnJob {
    pub(crate) tenant: TenantName,
    pub(crate) session: Session,
    pub(crate) keep: SessionKeep,
    pub(crate) sandbox_spec: SandboxSpec,
    pub(crate) storage: Arc<Storage>,
    /// The tenant's homes, the session's among them.
    pub(crate) homes: Arc<Homes>,
    /// What its tenant may take of what all share.
    pub(crate) share: Arc<Share>,
    pub(crate) start: TurnStart,
    pub(crate) cancel: CancellationToken,
    /// Rung when the client has answered a call.
    pub(crate) answered: Arc<Notify>,
    /// Cancelled when this server has to let the turn go.
    pub(crate) lease_over: CancellationToken,
    /// How long the turn may run, all attempts together.
    pub(crate) timeout: Duration,
    /// Credits are set aside before they are used.
    pub(crate) is_prepaid: bool,
}

impl TurnJob {
    /// What a turn of this tenant is driven with, the first time and after every take-over.
    pub(crate) fn new(
        rooms: &Rooms,
        tenant: &Tenant,
        (session, keep): (Session, SessionKeep),
        start: TurnStart,
        listed: &Listed,
        lease_over: CancellationToken,
    ) -> Result<Self, Error> {
        Ok(Self {
            tenant: tenant.config.name.clone(),
            sandbox_spec: crate::hands::spec(tenant, &session, &keep)?,
            session,
            keep,
            storage: tenant.storage.clone(),
            homes: tenant.homes.clone(),
            share: tenant.share.clone(),
            start,
            cancel: listed.cancel.clone(),
            answered: listed.answered.clone(),
            lease_over,
            timeout: Duration::from_secs(tenant.config.turn_timeout_s),
            is_prepaid: rooms
                .live()
                .billing
                .terms(&tenant.config)
                .is_some_and(|terms| terms.mode == CreditMode::Hard),
        })
    }
}

/// Where one attempt at a turn begins.
pub(crate) struct TurnStart {
    pub(crate) turn: TurnId,
    /// Which attempt it is, from 1; the fence of every commit.
    pub(crate) generation: i64,
    pub(crate) next_seq: u64,
    /// The last event of the turn's latest finished step.
    pub(crate) step_seq: u64,
    /// When the turn was started, Unix seconds: the limit of its time holds for all attempts together.
    pub(crate) started_at: f64,
}

/// Why a turn stops. Everything but `Stopped` becomes its terminal event.
enum TurnEnd {
    Completed(Usage),
    Cancelled,
    Failed {
        code: String,
        message: String,
    },
    /// The server drains or lets go, or the turn is not ours any more: nothing is said, somebody else goes on.
    Stopped,
}

impl From<StoreError> for TurnEnd {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced(_) | StoreError::Stopped => Self::Stopped,
            // Whoever reaches the database next goes on with the turn, this server included.
            lost if lost.is_unreachable() => {
                tracing::warn!(
                    error = %palisade_protocol::chain(&lost),
                    "a turn stops until the database answers"
                );
                Self::Stopped
            }
            other => {
                let error = palisade_protocol::Error::from(other);
                tracing::error!(error = %palisade_protocol::chain(&error), cause = ?error.source, "a turn could not be written");
                Self::Failed { code: error.code.to_owned(), message: error.message }
            }
        }
    }
}

/// What a running turn holds.
struct Driver {
    rooms: Arc<Rooms>,
    job: TurnJob,
    log: TurnLog,
    items: Vec<Item>,
    deadline: tokio::time::Instant,
    /// The call whose block readers see as open, with its whole input.
    open_call: Option<String>,
    /// Text of the latest answer that waits for the answer's calls.
    late_text: String,
}

/// Drives a turn in a task of its own.
pub(crate) fn spawn(rooms: &Arc<Rooms>, job: TurnJob, listed: Listed) {
    let task = rooms.clone();
    rooms.tasks.spawn(async move {
        drive(task, job).await;
        drop(listed);
    });
}

/// Ends a turn that cannot or must not go on, in a task of its own: it may take a while, and holds up no other.
pub(crate) fn spawn_end(rooms: &Arc<Rooms>, ending: Ending, said: Said, listed: Listed) {
    let task = rooms.clone();
    rooms.tasks.spawn(async move {
        ending.write(&task, said).await;
        drop(listed);
    });
}

/// Drives a turn to its end, whatever happens: a panic of ours must not leave the session busy.
async fn drive(rooms: Arc<Rooms>, job: TurnJob) {
    let ending = Ending::of(&job);
    let (session, turn) = (job.session.clone(), job.start.turn.clone());
    let end = match AssertUnwindSafe(drive_to_end(rooms.clone(), job)).catch_unwind().await {
        Ok(end) => end,
        Err(_) => {
            tracing::error!(session = %session.id, turn = %turn, "a turn panicked");
            rooms.hands.close(&session.id).await;
            let message = "The server failed unexpectedly in this turn; the log has the details.".to_owned();
            TurnEnd::Failed { code: "internal".to_owned(), message }
        }
    };
    match end::said(&rooms, &session, &turn, end) {
        Some(said) => ending.write(&rooms, said).await,
        None => ending.release().await,
    }
}

async fn drive_to_end(rooms: Arc<Rooms>, job: TurnJob) -> TurnEnd {
    let log = TurnLog::new(&job.share.store, &job.session.id, &job.start);
    let elapsed = Duration::try_from_secs_f64(now() - job.start.started_at).unwrap_or_default();
    let deadline = tokio::time::Instant::now() + job.timeout.saturating_sub(elapsed);
    let (items, open_call, late_text) = (Vec::new(), None, String::new());
    let mut driver = Driver { rooms, job, log, items, deadline, open_call, late_text };
    let end = match driver.steps().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    driver.end_processes(matches!(end, TurnEnd::Cancelled)).await;
    if let Some(tenant) = driver.rooms.live().tenants.get(&driver.job.tenant) {
        // The agent may have changed one.
        tenant.shelf.snapshots.look();
    }
    end
}

enum Never {}

impl Driver {
    /// Step after step, until one of them ends the turn.
    async fn steps(&mut self) -> Result<Never, TurnEnd> {
        self.items = self.job.share.store.items(&self.job.session.id).await?;
        if self.job.start.generation > 1 {
            self.reopen().await?;
        }
        loop {
            let step = palisade_agent::step(&self.job.keep.agent, &self.items);
            if matches!(step, Step::CallModel | Step::Finish) {
                self.show_late_text().await?;
            }
            match step {
                Step::CallModel => {
                    self.check_disk()?;
                    self.call_model().await?;
                }
                Step::RunTool(call) => self.run_tool(call).await?,
                Step::RequestTool(call) => self.request_tool(call).await?,
                Step::AwaitClient(calls) => self.await_client(&calls).await?,
                Step::OutcomeUnknown(call) => {
                    let output = ToolOutput::error(
                        "tool.outcome_unknown",
                        "The server was restarted while this call ran. Whether it took effect is not known: look before you repeat it.",
                    );
                    self.close_call(&call, output).await?;
                }
                Step::Finish => return Err(TurnEnd::Completed(self.usage())),
                Step::TooManyModelCalls => {
                    return Err(TurnEnd::Failed {
                        code: "turn.too_many_steps".into(),
                        message: "The turn reached the largest number of model calls; send another message to go on.".into(),
                    });
                }
                Step::Idle => return Err(TurnEnd::Stopped),
            }
        }
    }

    /// What the model said after it had begun its calls.
    async fn show_late_text(&mut self) -> Result<(), TurnEnd> {
        let content = std::mem::take(&mut self.late_text);
        if content.is_empty() {
            return Ok(());
        }
        self.append(vec![Event::TextStart {}, Event::TextDelta { content }, Event::TextStop {}], Vec::new())
            .await
    }

    /// On a full disk what is left is for the turn's end.
    fn check_disk(&self) -> Result<(), TurnEnd> {
        if !self.rooms.disk.is_low() {
            return Ok(());
        }
        let message = "The server's disk is full; nothing more of this turn was done.".to_owned();
        Err(TurnEnd::Failed { code: "storage.full".to_owned(), message })
    }

    /// Appends to the log and to what the agent sees; never interrupted, so that the two cannot part.
    async fn append(&mut self, events: Vec<Event>, items: Vec<Item>) -> Result<(), TurnEnd> {
        self.check_disk()?;
        self.log.append(events, items.clone()).await?;
        self.items.extend(items);
        Ok(())
    }

    /// What the turn has left running ends with it. A cancel does not wait for a sandbox that is slow to answer.
    async fn end_processes(&self, is_cancelled: bool) {
        let (hands, session) = (&self.rooms.hands, &self.job.session.id);
        if !is_cancelled {
            return hands.end_turn(session).await;
        }
        if tokio::time::timeout(CANCEL_WAIT_MAX, hands.end_turn(session)).await.is_err() {
            hands.close(session).await;
        }
    }

    /// Waits for something outside, unless the turn is to stop first.
    async fn or_interrupted<T>(&self, waiting: impl Future<Output = T>) -> Result<T, TurnEnd> {
        let draining = self.rooms.draining.clone();
        self.or_ended(async move {
            tokio::select! {
                biased;
                () = draining.cancelled() => Err(TurnEnd::Stopped),
                done = waiting => Ok(done),
            }
        })
        .await?
    }

    /// The same, though the server drains: for what should rather come to its end.
    async fn or_ended<T>(&self, waiting: impl Future<Output = T>) -> Result<T, TurnEnd> {
        tokio::select! {
            biased;
            () = self.job.cancel.cancelled() => Err(TurnEnd::Cancelled),
            () = self.job.lease_over.cancelled() => Err(TurnEnd::Stopped),
            () = tokio::time::sleep_until(self.deadline) => Err(TurnEnd::Failed {
                code: "turn.timeout".into(),
                message: format!("The turn ran longer than the {} s that a turn may take.", self.job.timeout.as_secs()),
            }),
            done = waiting => Ok(done),
        }
    }

    /// Completes when the server drains and has waited long enough for a tool.
    fn drain_grace(&self) -> impl Future<Output = ()> + Send + use<> {
        let draining = self.rooms.draining.clone();
        async move {
            draining.cancelled().await;
            tokio::time::sleep(DRAIN_GRACE).await;
        }
    }

    /// What the turn's model calls cost together.
    fn usage(&self) -> Usage {
        let start = self.items.iter().rposition(|item| matches!(item, Item::UserMessage { .. })).unwrap_or(0);
        self.items[start..].iter().fold(Usage::default(), |sum, item| match item {
            Item::AssistantMessage { usage, .. } => sum.plus(*usage),
            _ => sum,
        })
    }
}

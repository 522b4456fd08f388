//! What can be written. Each write stands or falls for itself in the group's transaction: one refusal undoes only
//! what it did.

use palisade_protocol::event::RenderedEvent;
use palisade_protocol::item::TurnOutcome;
use palisade_protocol::{Item, MicroCredits, Session, SessionId, TenantName, TurnId};
use serde_json::Value;

use crate::audit::SkillUse;
use crate::engine::Connection;
use crate::ledger::Posting;
use crate::metering::{MeteredCall, TurnAccount};
use crate::vault::VaultWrite;
use crate::{StoreError, ledger, lifetimes, metering, servers, sessions, sweep, turns, vault};

/// A session to be created.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its record.
    pub session: Session,
    /// What it keeps from its creation, as JSON, in the runtime's own form.
    pub context: String,
    /// The snapshots of skills that it keeps, by name.
    pub snapshots: Vec<String>,
    /// How many sessions its tenant may have, this one included.
    pub sessions_max: u64,
}

/// A turn to be started.
#[derive(Debug, Clone)]
pub struct NewTurn {
    /// Its id.
    pub id: TurnId,
    /// Whose session, so that nobody can start a turn in another tenant's.
    pub tenant: TenantName,
    /// Which session.
    pub session: SessionId,
    /// Unix seconds.
    pub now: f64,
    /// The first events: `message.created`.
    pub events: Vec<RenderedEvent>,
    /// The first items: the user's message.
    pub items: Vec<Item>,
    /// Taken with the turn, or not at all.
    pub key: Option<IdempotencyKey>,
    /// Who starts it, what that caller may use, and who pays.
    pub account: TurnAccount,
}

/// What a client calls a request, so that it can be repeated without being done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's text; unique within its tenant.
    pub key: String,
    /// Tells the same request from another one under the same key.
    pub body_hash: String,
}

/// One durable step of a running turn: events and items stand or fall together.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which session.
    pub session: SessionId,
    /// Which turn.
    pub turn: TurnId,
    /// The fence: the attempt that writes. A commit of an attempt that no longer owns the turn changes nothing.
    pub generation: i64,
    /// For the readers, numbered on from what was appended before.
    pub events: Vec<RenderedEvent>,
    /// For the agent.
    pub items: Vec<Item>,
    /// The model call whose answer is among the items.
    pub metered: Option<MeteredCall>,
    /// The skill whose text is among the items.
    pub skill: Option<SkillUse>,
    /// Ends the turn: how, and when (Unix seconds). The session is free from this commit on, and what the turn has
    /// used is paid. After a cancel that was asked for in time, any other end than the cancelled one is
    /// [`StoreError::CancelRequested`].
    pub end: Option<(TurnOutcome, f64)>,
}

/// What a client answered to a call of one of its tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAnswer {
    /// Which call.
    pub call_id: String,
    /// For the model.
    pub content: String,
    /// Whether it failed.
    pub is_error: bool,
}

/// Everything the writer can be asked for.
#[derive(Debug)]
pub(crate) enum Write {
    CreateSession(Box<NewSession>),
    StartTurn(NewTurn),
    Commit(Commit),
    EndUnsettled {
        commit: Commit,
        why: String,
    },
    AnswerCalls {
        turn: TurnId,
        answers: Vec<ClientAnswer>,
    },
    Release {
        turn: TurnId,
        generation: i64,
    },
    Reserve {
        turn: TurnId,
        generation: i64,
        estimate: MicroCredits,
    },
    OpenLedger {
        posting: Posting,
        /// Whether there is something to begin with, be it nothing.
        is_stated: bool,
        at: f64,
    },
    Post {
        posting: Posting,
        at: f64,
    },
    SweepUsage {
        before_minute: i64,
    },
    RequestCancel {
        turn: TurnId,
    },
    TakeOver {
        session: SessionId,
        turn: TurnId,
        generation: i64,
    },
    SweepKeys {
        created_by: f64,
        rows_max: i64,
    },
    SetMetadata {
        session: SessionId,
        key: String,
        value: Value,
    },
    DeleteSession {
        tenant: TenantName,
        session: SessionId,
        now: f64,
    },
    DeleteIdleSession {
        tenant: TenantName,
        session: SessionId,
        inactive_since: f64,
        used_only: bool,
    },
    SweepEvents {
        ended_before: f64,
        rows_max: i64,
    },
    SweepItems {
        rows_max: i64,
    },
    Vault(Box<VaultWrite>),
    RegisterServer {
        server: String,
    },
    Beat,
    RemoveServer {
        server: String,
        beats: i64,
    },
    RemoveOtherServers,
    Leave,
}

impl Write {
    /// A commit of nothing but events, which are most of all writes and can be written many at once.
    pub(crate) fn as_append(&self) -> Option<&Commit> {
        match self {
            Self::Commit(commit)
                if commit.items.is_empty() && commit.end.is_none() && commit.metered.is_none() =>
            {
                Some(commit)
            }
            _ => None,
        }
    }
}

impl Write {
    /// What it holds of what may be large, in bytes: what it costs to keep it waiting.
    pub(crate) fn bytes(&self) -> usize {
        let of_events = |events: &[RenderedEvent]| events.iter().map(|event| event.data.len()).sum::<usize>();
        let of_items = |items: &[Item]| items.iter().map(item_bytes).sum::<usize>();
        match self {
            Self::CreateSession(new) => new.context.len(),
            Self::StartTurn(NewTurn { events, items, .. })
            | Self::Commit(Commit { events, items, .. })
            | Self::EndUnsettled { commit: Commit { events, items, .. }, .. } => {
                of_events(events) + of_items(items)
            }
            Self::AnswerCalls { answers, .. } => answers.iter().map(|answer| answer.content.len()).sum(),
            Self::SetMetadata { value, .. } => value.as_str().map_or(0, str::len),
            _ => 0,
        }
    }

    /// Whether it may look at money or usage, or change any.
    pub(crate) fn touches_money(&self) -> bool {
        match self {
            Self::Commit(commit) => commit.metered.is_some() || commit.end.is_some(),
            Self::StartTurn(_)
            | Self::EndUnsettled { .. }
            | Self::Reserve { .. }
            | Self::OpenLedger { .. }
            | Self::Post { .. }
            | Self::SweepUsage { .. }
            | Self::DeleteSession { .. } => true,
            // What it deletes runs no turn, so that there is nothing to settle.
            Self::DeleteIdleSession { .. }
            | Self::CreateSession(_)
            | Self::AnswerCalls { .. }
            | Self::Release { .. }
            | Self::RequestCancel { .. }
            | Self::TakeOver { .. }
            | Self::SweepKeys { .. }
            | Self::SetMetadata { .. }
            | Self::SweepEvents { .. }
            | Self::SweepItems { .. }
            | Self::RegisterServer { .. }
            | Self::Beat
            | Self::RemoveServer { .. }
            | Self::RemoveOtherServers
            | Self::Leave
            | Self::Vault(_) => false,
        }
    }
}

/// Applies one write for this server; the number is of rows deleted, where that is what was asked.
pub(crate) async fn apply(db: &mut Connection, server: &str, write: &Write) -> Result<u64, StoreError> {
    match write {
        Write::CreateSession(new) => sessions::create(db, new).await,
        Write::SetMetadata { session, key, value } => sessions::set_metadata(db, session, key, value).await,
        Write::DeleteSession { tenant, session, now } => sessions::delete(db, tenant, session, *now).await,
        Write::DeleteIdleSession { tenant, session, inactive_since, used_only } => {
            lifetimes::delete_idle_session(db, tenant, session, *inactive_since, *used_only).await
        }
        Write::StartTurn(new) => turns::start(db, server, new).await,
        Write::Commit(commit) => turns::commit(db, commit).await,
        Write::EndUnsettled { commit, why } => turns::end_unsettled(db, commit, why).await,
        Write::AnswerCalls { turn, answers } => turns::answer_calls(db, turn, answers).await,
        Write::Release { turn, generation } => turns::release(db, turn, *generation).await,
        Write::Reserve { turn, generation, estimate } => {
            metering::reserve(db, turn, *generation, *estimate).await
        }
        Write::OpenLedger { posting, is_stated, at } => ledger::open(db, posting, *is_stated, *at).await,
        Write::Post { posting, at } => ledger::post(db, posting, *at).await,
        Write::SweepUsage { before_minute } => metering::sweep(db, *before_minute).await,
        Write::RequestCancel { turn } => turns::request_cancel(db, turn).await,
        Write::TakeOver { turn, generation, .. } => turns::take_over(db, server, turn, *generation).await,
        Write::SweepKeys { created_by, rows_max } => sweep::keys(db, *created_by, *rows_max).await,
        Write::SweepEvents { ended_before, rows_max } => sweep::events(db, *ended_before, *rows_max).await,
        Write::SweepItems { rows_max } => sweep::items(db, *rows_max).await,
        Write::Vault(write) => vault::apply(db, server, write).await,
        Write::RegisterServer { server } => servers::register(db, server).await,
        Write::Beat => servers::beat(db, server).await,
        Write::RemoveServer { server, beats } => servers::remove(db, server, *beats).await,
        Write::RemoveOtherServers => servers::remove_others(db, server).await,
        Write::Leave => servers::leave(db, server).await,
    }
}

pub(crate) fn to_json(what: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt { what, source: e.into() })
}

pub(crate) fn writing(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Write { what, source }
}

/// `taken` where the database says that a row with this key is there already.
pub(crate) fn unless_taken(what: &'static str, taken: StoreError) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| match source.as_database_error() {
        Some(error) if error.is_unique_violation() => taken,
        _ => StoreError::Write { what, source },
    }
}

fn item_bytes(item: &Item) -> usize {
    match item {
        Item::UserMessage { text } => text.len(),
        Item::AssistantMessage { text, reasoning, calls, .. } => {
            text.len() + reasoning.len() + calls.iter().map(|call| call.arguments.len()).sum::<usize>()
        }
        Item::ToolFinished { output, .. } => output.content.len(),
        Item::ToolStarted { .. } | Item::ToolRequested { .. } | Item::TurnEnded { .. } => 0,
    }
}

//! The usage audit: one record a turn and one a skill, kept when the session is gone, read in bounded pages.

use palisade_protocol::audit::{AuditEvent, EventType};
use palisade_protocol::{MicroCredits, TurnId};

use crate::engine::{Connection, query};
use crate::read::reading;
use crate::write::writing;
use crate::{Store, StoreError};

/// A skill that the agent took up in a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct SkillUse {
    /// The tool call that it was.
    pub call_id: String,
    /// The skill.
    pub name: String,
    /// Whether the agent could read it.
    pub succeeded: bool,
    /// Unix seconds.
    pub at: f64,
}

/// Which records somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRange {
    /// Unix seconds; those of this moment are in it.
    pub since: f64,
    /// Unix seconds; those of this moment are not.
    pub until: f64,
    /// Of this tenant only.
    pub tenant: Option<String>,
}

#[derive(sqlx::FromRow)]
struct AuditRow {
    id: String,
    at: f64,
    tenant: String,
    caller: String,
    event_type: String,
    session_id: String,
    response_id: String,
    name: String,
    input_tokens: i64,
    cached_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    micro_credits: i64,
    outcome: String,
}

impl Store {
    /// The next records after `after` (the time and the id of the last one seen), oldest first.
    pub async fn audit_events(
        &self,
        range: &AuditRange,
        after: Option<(f64, &str)>,
        limit: i64,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let (at, id) = after.unwrap_or((range.since, ""));
        let rows = query(
            "SELECT id, at, tenant, caller, event_type, session_id, response_id, name, input_tokens, cached_tokens,
                    output_tokens, reasoning_tokens, micro_credits, outcome
             FROM audit_event
             WHERE at >= $1 AND at < $2 AND (at > $1 OR id > $3) AND (CAST($4 AS TEXT) IS NULL OR tenant = $4)
             ORDER BY at, id LIMIT $5",
        );
        let rows = rows.bind(at).bind(range.until).bind(id).bind(range.tenant.as_deref()).bind(limit);
        let rows = rows.all::<AuditRow>(&self.readers).await.map_err(reading("audit records"))?;
        rows.into_iter().map(event_of).collect()
    }
}

fn event_of(row: AuditRow) -> Result<AuditEvent, StoreError> {
    let event_type = EventType::parse(&row.event_type).ok_or_else(|| StoreError::Corrupt {
        what: "an audit record",
        source: format!("the type {:?}", row.event_type).into(),
    })?;
    Ok(AuditEvent {
        id: row.id,
        at: row.at,
        tenant: row.tenant,
        caller: row.caller,
        event_type,
        session_id: row.session_id,
        response_id: row.response_id,
        name: row.name,
        input_tokens: row.input_tokens.unsigned_abs(),
        cached_tokens: row.cached_tokens.unsigned_abs(),
        output_tokens: row.output_tokens.unsigned_abs(),
        reasoning_tokens: row.reasoning_tokens.unsigned_abs(),
        micro_credits: MicroCredits(row.micro_credits),
        outcome: row.outcome,
    })
}

/// Written with the call's outcome; a second time it changes nothing.
pub(crate) async fn record_skill(
    db: &mut Connection,
    turn: &TurnId,
    skill: &SkillUse,
) -> Result<(), StoreError> {
    let recorded = query(
        "INSERT INTO audit_event (id, at, tenant, caller, event_type, session_id, response_id, name, input_tokens,
                                  cached_tokens, output_tokens, reasoning_tokens, micro_credits, outcome)
         SELECT $1, $2, session.tenant, turn.caller, $3, session.id, turn.id, $4, 0, 0, 0, 0, 0, $5
         FROM turn JOIN session ON session.id = turn.session_id WHERE turn.id = $6
         ON CONFLICT (id) DO NOTHING",
    );
    let recorded = recorded
        .bind(&format!("skill/{turn}/{}", skill.call_id))
        .bind(skill.at)
        .bind(EventType::Skill.name())
        .bind(&skill.name)
        .bind(if skill.succeeded { "completed" } else { "failed" })
        .bind(turn.as_str())
        .execute(db)
        .await;
    recorded.map(drop).map_err(writing("an audit record"))
}

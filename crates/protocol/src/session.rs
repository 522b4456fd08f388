//! The session record and what a client may ask for when creating one (contract §3).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

use crate::{FileAccess, SessionId, TurnId};

/// A session as the wire shows it. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Session {
    /// `sess_<12 hex>`.
    pub id: SessionId,
    /// When it was created.
    pub created_at: f64,
    /// The latest of: creation, a turn's start, a turn's end (decision 14).
    pub last_activity: f64,
    /// Whether a turn is running.
    pub busy: bool,
    /// Whether it outlives five minutes of idleness.
    pub persistent: bool,
    /// Seconds; a hard upper bound on the lifetime.
    pub ttl: u64,
    /// Always `ready`: a session that is being made or unmade is not shown.
    pub status: SessionStatus,
    /// Free-form; tools write progress hints here.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// What it may see and change; immutable.
    pub file_access: FileAccess,
    /// Folders at the top of the workspace that are read-only inside its sandbox, but for paths below them that
    /// `file_access.write` names.
    #[serde(default)]
    pub locked: Vec<String>,
    /// The catalog model that every turn runs on.
    pub model: String,
    /// `created_at + ttl`.
    pub expires_at: f64,
    /// The latest turn, running or ended; what a client that lost its stream resumes with.
    pub last_response_id: Option<TurnId>,
}

/// In which order sessions are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
pub enum SessionOrder {
    /// By the time of their creation.
    #[default]
    #[serde(rename = "asc")]
    OldestFirst,
    /// The other way round.
    #[serde(rename = "desc")]
    NewestFirst,
}

/// A place in the list of sessions, which stays one when its session is gone. As text: `1777222996.07-sess_a86118c06688`.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionCursor {
    /// When the session at this place was created.
    pub created_at: f64,
    /// Its id, since two may have been created at once.
    pub id: SessionId,
}

impl SessionCursor {
    /// The place of a session.
    pub fn of(session: &Session) -> Self {
        Self { created_at: session.created_at, id: session.id.clone() }
    }

    /// Reads the text; `None` when it is no such place.
    pub fn parse(text: &str) -> Option<Self> {
        let (created_at, id) = text.split_once('-')?;
        let created_at = created_at.parse().ok().filter(|at: &f64| at.is_finite())?;
        Some(Self { created_at, id: SessionId::parse(id).ok()? })
    }
}

impl std::fmt::Display for SessionCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.created_at, self.id)
    }
}

/// The only status a client can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Takes messages.
    Ready,
}

/// The body of `POST /v1/sessions`; every field has a default, which `null` means too. Unknown fields are
/// refused: a misspelt `file_access` would open the whole workspace. Objects inside `tools` may have any (decision 55).
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionDraft {
    /// Outlives idleness when true.
    #[serde(deserialize_with = "or_default")]
    pub persistent: bool,
    /// Seconds, 1 to 30 days; 4 hours when absent.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub ttl: Option<u64>,
    /// At most 16 KiB as JSON.
    #[serde(deserialize_with = "or_default")]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// The whole workspace when absent.
    pub file_access: Option<FileAccess>,
    /// A catalog name; ignored unless the tenant lets clients choose.
    pub model: Option<String>,
    /// OpenAI function definitions for client-side tools.
    #[serde(deserialize_with = "or_default")]
    #[schema(value_type = Vec<Object>, max_items = 128)]
    pub tools: Vec<Value>,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// A whole number, also one that a client writes as `600.0`.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    let from_float = || number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..1e15).contains(float));
    let whole = number.as_u64().or_else(|| from_float().map(|float| float as u64));
    whole.map(Some).ok_or_else(|| serde::de::Error::custom("it must be a whole number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_list_is_a_text() {
        let id = SessionId::parse("sess_a86118c06688").unwrap();
        for created_at in [1_777_222_996.07, 0.1 + 0.2, 1.0] {
            let cursor = SessionCursor { created_at, id: id.clone() };
            assert_eq!(SessionCursor::parse(&cursor.to_string()), Some(cursor));
        }
        for wrong in
            ["", "-", "1", "x-sess_a86118c06688", "NaN-sess_a86118c06688", "1-sess_", "sess_a86118c06688"]
        {
            assert_eq!(SessionCursor::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn null_is_absent_and_whole_floats_are_numbers() {
        let nulls = r#"{"persistent": null, "ttl": null, "metadata": null, "file_access": null, "model": null, "tools": null}"#;
        let draft: SessionDraft = serde_json::from_str(nulls).unwrap();
        assert!(!draft.persistent && draft.ttl.is_none() && draft.metadata.is_empty());
        assert!(draft.file_access.is_none() && draft.model.is_none() && draft.tools.is_empty());
        for (ttl, expected) in
            [("600", Some(600)), ("600.0", Some(600)), ("6e2", Some(600)), ("0.0", Some(0))]
        {
            let draft: SessionDraft = serde_json::from_str(&format!("{{\"ttl\": {ttl}}}")).unwrap();
            assert_eq!(draft.ttl, expected, "{ttl}");
        }
        for wrong in ["600.5", "-1", "-1.0", "1e300", "\"600\"", "true", "[]"] {
            assert!(
                serde_json::from_str::<SessionDraft>(&format!("{{\"ttl\": {wrong}}}")).is_err(),
                "{wrong}"
            );
        }
    }
}

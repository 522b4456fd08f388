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

/// The only status a client can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Takes messages.
    Ready,
}

/// The body of `POST /v1/sessions`; every field has a default, which `null` means too. Unknown fields are ignored, because v1 is
/// additive and a newer client may send more.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct SessionDraft {
    /// Outlives idleness when true.
    #[serde(deserialize_with = "or_default")]
    pub persistent: bool,
    /// Seconds, 1 to 30 days; 4 hours when absent.
    #[serde(deserialize_with = "whole")]
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
    #[schema(value_type = Vec<Object>)]
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
    whole.map(Some).ok_or_else(|| serde::de::Error::custom("ttl is a whole number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! The session record and what a client may ask for when creating one (contract §3).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// The body of `POST /v1/sessions`; every field has a default. Unknown fields are ignored, because v1 is
/// additive and a newer client may send more.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct SessionDraft {
    /// Outlives idleness when true.
    pub persistent: bool,
    /// Seconds, 1 to 30 days; 4 hours when absent.
    pub ttl: Option<u64>,
    /// At most 16 KiB as JSON.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// The whole workspace when absent.
    pub file_access: Option<FileAccess>,
    /// A catalog name; ignored unless the tenant lets clients choose.
    pub model: Option<String>,
    /// OpenAI function definitions for client-side tools.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
}

//! What a session keeps from its creation, so that later changes to the workspace do not reach it (contract §6).

use palisade_protocol::ToolDefinition;
use serde::{Deserialize, Serialize};

/// The unchanging part of every prompt of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionContext {
    /// The day the session was created, `YYYY-MM-DD`.
    pub date: String,
    /// `.pokee/*.md`, already put together.
    pub agent_context: String,
    /// The catalog: what the model is told, and nothing that it is not.
    pub skills: Vec<SkillEntry>,
    /// Tools that the client runs.
    #[serde(default)]
    pub client_tools: Vec<ToolDefinition>,
    /// Whether `.memory/` is there.
    pub memory: bool,
    /// Whether the session sees only a part of the workspace; then the prompt says which.
    pub scope: Option<ScopeNote>,
    /// What its sandbox reaches.
    #[serde(default)]
    pub network: Network,
}

impl SessionContext {
    /// Whether the client runs this tool.
    pub fn is_client_tool(&self, name: &str) -> bool {
        self.client_tools.iter().any(|tool| tool.name == name)
    }
}

/// What a session's sandbox reaches, as the model is told. What holds it to that is elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing: an offline tenant.
    #[default]
    None,
    /// These hosts and no others.
    Hosts(Vec<String>),
    /// The public internet.
    Public,
}

/// One skill of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillEntry {
    /// `[a-z0-9_-]{1,64}`; also its folder under `/skills`.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
}

/// What a scoped session is told of its scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeNote {
    /// Paths it may read.
    pub read: Vec<String>,
    /// Paths it may write.
    pub write: Vec<String>,
}

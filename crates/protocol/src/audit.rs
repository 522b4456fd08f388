//! The usage audit: what was done, by whom and for how much, one record each, and how a record is written for a
//! person's spreadsheet and for a machine. Never what was said: no message, no answer, no file.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::money::MicroCredits;

/// What a record is about (contract §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A session's turn, at its end.
    Turn,
    /// A stateless response.
    Response,
    /// A skill that the agent took up.
    Skill,
    /// A part of a turn that ran on its own.
    Subagent,
}

impl EventType {
    /// As the export and the store name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Response => "response",
            Self::Skill => "skill",
            Self::Subagent => "subagent",
        }
    }

    /// The reverse of [`EventType::name`].
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Turn, Self::Response, Self::Skill, Self::Subagent].into_iter().find(|kind| kind.name() == name)
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Unique; the same when a record is exported twice.
    pub id: String,
    /// Unix seconds.
    pub at: f64,
    /// Whose.
    pub tenant: String,
    /// The token it was done with, by its configured id.
    pub caller: String,
    /// What it is about.
    pub event_type: EventType,
    /// In which session.
    pub session_id: String,
    /// In which turn or response.
    pub response_id: String,
    /// The model, where one was asked; the skill's name for a skill.
    pub name: String,
    /// Tokens sent to the model, cached ones included.
    pub input_tokens: u64,
    /// Part of the input that the upstream served from its cache.
    pub cached_tokens: u64,
    /// Tokens the model produced, reasoning included.
    pub output_tokens: u64,
    /// Part of the output that was reasoning.
    pub reasoning_tokens: u64,
    /// What was debited, in micro-credits.
    pub micro_credits: MicroCredits,
    /// `completed`, `cancelled` or `failed`.
    pub outcome: String,
}

/// The first line of a CSV export.
pub const CSV_HEADER: &str = "id,at,tenant,caller,event_type,session_id,response_id,name,input_tokens,cached_tokens,output_tokens,reasoning_tokens,micro_credits,outcome\r\n";

impl AuditEvent {
    /// One line of JSON, with its line end.
    pub fn to_json_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// One line of CSV (RFC 4180), with its line end.
    pub fn to_csv_line(&self) -> String {
        let mut line = String::new();
        for (at, text) in [
            self.id.as_str(),
            &format!("{:.6}", self.at),
            &self.tenant,
            &self.caller,
            self.event_type.name(),
            &self.session_id,
            &self.response_id,
            &self.name,
        ]
        .into_iter()
        .enumerate()
        {
            if at > 0 {
                line.push(',');
            }
            line.push_str(&cell(text));
        }
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            ",{},{},{},{},{},{}\r\n",
            self.input_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.micro_credits.0,
            cell(&self.outcome)
        );
        line
    }
}

/// Quoted where it has to be. What a spreadsheet would take for a formula is kept from being one.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guarded = if is_formula { format!("'{text}") } else { text.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", guarded.replace('"', "\"\""));
    }
    guarded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            id: "turn/msg_1".into(),
            at: 1777222996.07,
            tenant: "acme".into(),
            caller: "ci, \"nightly\"".into(),
            event_type: EventType::Turn,
            session_id: "sess_1".into(),
            response_id: "msg_1".into(),
            name: "=cmd()".into(),
            input_tokens: 10,
            cached_tokens: 4,
            output_tokens: 5,
            reasoning_tokens: 1,
            micro_credits: MicroCredits(12_500),
            outcome: "completed".into(),
        }
    }

    #[test]
    fn one_record_in_both_forms() {
        let line = event().to_csv_line();
        assert_eq!(
            line,
            "turn/msg_1,1777222996.070000,acme,\"ci, \"\"nightly\"\"\",turn,sess_1,msg_1,'=cmd(),10,4,5,1,12500,completed\r\n"
        );
        assert_eq!(CSV_HEADER.matches(',').count(), 13);
        let json = event().to_json_line();
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<AuditEvent>(&json).unwrap(), event());
        let keys = serde_json::to_value(event()).unwrap();
        for key in CSV_HEADER.trim_end().split(',') {
            assert!(!keys[key].is_null(), "{key} stands in both forms");
        }
    }

    #[test]
    fn types_have_the_contracts_names() {
        for name in ["turn", "response", "skill", "subagent"] {
            assert_eq!(EventType::parse(name).unwrap().name(), name);
        }
        assert_eq!(EventType::parse("Turn"), None);
    }
}

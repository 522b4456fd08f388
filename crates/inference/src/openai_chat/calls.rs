//! Tool calls out of deltas. Servers number them, or name them by id, or do neither; they repeat ids and names
//! on every piece, or send a whole call at once. What must never happen is a piece in the wrong call.

use palisade_protocol::limits::CALLS_PER_ANSWER_MAX;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::wire::text;
use crate::{CallIds, ModelEvent};

/// The calls of one answer so far.
#[derive(Debug)]
pub(super) struct CallTable {
    calls: Vec<Call>,
    ids: CallIds,
}

#[derive(Debug, Default)]
struct Call {
    upstream_index: Option<u64>,
    upstream_id: String,
    name: String,
    arguments: String,
}

/// What cannot be a tool call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallFault {
    /// More calls than an answer may hold.
    TooMany,
    /// Arguments of no call.
    Stray,
    /// A call whose name never came.
    Nameless,
}

/// One piece as it came.
struct Piece<'a> {
    index: Option<u64>,
    id: &'a str,
    name: &'a str,
    arguments: String,
}

impl CallTable {
    pub(super) fn new(ids: CallIds) -> Self {
        Self { calls: Vec::new(), ids }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Adds one element of a delta's `tool_calls`.
    pub(super) fn add(&mut self, piece: &Value) -> Result<Vec<ModelEvent>, CallFault> {
        let function = &piece["function"];
        let piece = Piece {
            index: piece["index"].as_u64(),
            id: text(piece, "id"),
            name: text(function, "name"),
            arguments: arguments_text(&function["arguments"]),
        };
        let place = match self.place_of(&piece) {
            Some(place) => place,
            None if piece.name.is_empty() && piece.id.is_empty() && piece.index.is_none() => {
                // An empty shell says nothing; arguments without any call are lost if not refused.
                return if piece.arguments.is_empty() { Ok(vec![]) } else { Err(CallFault::Stray) };
            }
            None if self.calls.len() == CALLS_PER_ANSWER_MAX => return Err(CallFault::TooMany),
            None => {
                self.calls.push(Call { upstream_index: piece.index, ..Call::default() });
                self.calls.len() - 1
            }
        };
        Ok(self.extend(place, &piece))
    }

    /// The answer is whole: every call has a name, and one that was sent no arguments gets the empty ones.
    pub(super) fn finish(&self) -> Result<Vec<ModelEvent>, CallFault> {
        if self.calls.iter().any(|call| call.name.is_empty()) {
            return Err(CallFault::Nameless);
        }
        let bare = self.calls.iter().enumerate().filter(|(_, call)| call.arguments.trim().is_empty());
        Ok(bare.map(|(index, _)| ModelEvent::CallDelta { index, arguments: "{}".into() }).collect())
    }

    /// The call that a piece continues; `None` when it begins one.
    fn place_of(&self, piece: &Piece<'_>) -> Option<usize> {
        let last = self.calls.len().checked_sub(1);
        let place = match piece.index {
            Some(_) => self.calls.iter().rposition(|call| call.upstream_index == piece.index),
            None if piece.id.is_empty() => last,
            // An id that is new begins a call only with a name: some servers draw a new id for every piece.
            None => self
                .calls
                .iter()
                .rposition(|call| call.upstream_id == piece.id)
                .or(if piece.name.is_empty() { last } else { None }),
        }?;
        (!begins_another(&self.calls[place], piece)).then_some(place)
    }

    fn extend(&mut self, index: usize, piece: &Piece<'_>) -> Vec<ModelEvent> {
        let call = &mut self.calls[index];
        if call.upstream_id.is_empty() {
            piece.id.clone_into(&mut call.upstream_id);
        }
        call.arguments.push_str(&piece.arguments);
        let mut fresh = piece.arguments.clone();
        let mut events = Vec::new();
        if call.name.is_empty() {
            if piece.name.is_empty() {
                return events;
            }
            piece.name.clone_into(&mut call.name);
            let id = self.ids.adopt(&call.upstream_id);
            events.push(ModelEvent::CallStart { index, id, name: call.name.clone() });
            // Arguments that came before the name have waited for it.
            fresh.clone_from(&call.arguments);
        }
        if !fresh.is_empty() {
            events.push(ModelEvent::CallDelta { index, arguments: fresh });
        }
        events
    }
}

/// Whether a piece that points at this call is in truth the next call: servers number all calls 0, give all of
/// them one id, or leave both out.
fn begins_another(call: &Call, piece: &Piece<'_>) -> bool {
    if piece.name.is_empty() || call.name.is_empty() {
        return false;
    }
    let ids_differ = !piece.id.is_empty() && !call.upstream_id.is_empty() && piece.id != call.upstream_id;
    if ids_differ || piece.name != call.name {
        return true;
    }
    // The same name again: the next call if this one is whole and more than a repetition comes.
    let is_repetition = piece.arguments.is_empty() && (piece.index.is_some() || !piece.id.is_empty());
    !is_repetition && !continues(&piece.arguments) && is_whole(&call.arguments)
}

fn continues(arguments: &str) -> bool {
    !arguments.is_empty() && !arguments.trim_start().starts_with('{')
}

fn is_whole(arguments: &str) -> bool {
    arguments.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}

/// Arguments are text; some servers send the object itself.
fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        Value::Object(_) => arguments.to_string(),
        _ => String::new(),
    }
}

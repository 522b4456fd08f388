//! Ids of tool calls. Upstreams leave them out, send them empty or use the same one twice; what we hand on is
//! unique within the conversation, because results are matched by id.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use palisade_protocol::prompt::PromptMessage;

/// Longer ids than this are replaced; they are echoed into every later request.
const CALL_ID_BYTES_MAX: usize = 128;

/// Hands out the ids of one answer's calls.
#[derive(Clone)]
pub struct CallIds {
    taken: HashSet<String>,
    /// Whether the upstream's are taken where they will do.
    adopts: bool,
    mint: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for CallIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallIds").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl CallIds {
    /// Ids that differ from every one in this conversation.
    pub fn beside(messages: &[PromptMessage]) -> Self {
        let ids = messages.iter().flat_map(|message| match message {
            PromptMessage::Assistant { calls, .. } => calls.as_slice(),
            PromptMessage::User(_) | PromptMessage::ToolResult { .. } => &[],
        });
        let taken = ids.map(|call| call.id.clone()).collect();
        Self { taken, adopts: true, mint: Arc::new(random_call_id) }
    }

    /// Ids of ours alone, whatever the upstream offers: for when readers have seen calls that the conversation does
    /// not know, since their answer was cut. An upstream that counts its calls would use their ids again.
    pub fn ours() -> Self {
        Self { taken: HashSet::new(), adopts: false, mint: Arc::new(random_call_id) }
    }

    /// Ids from this source where the upstream's will not do. It must not repeat itself for ever.
    pub fn minted_by(mint: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { taken: HashSet::new(), adopts: true, mint: Arc::new(mint) }
    }

    /// The upstream's id if it is usable and new, else one of ours.
    pub(crate) fn adopt(&mut self, offered: &str) -> String {
        let is_usable = self.adopts
            && !offered.is_empty()
            && offered.len() <= CALL_ID_BYTES_MAX
            && offered.bytes().all(|byte| byte.is_ascii_graphic());
        let mut id = if is_usable { offered.to_owned() } else { (self.mint)() };
        while !self.taken.insert(id.clone()) {
            id = (self.mint)();
        }
        id
    }
}

/// `call_` and 24 hex digits. Ids need to differ, not to be secret: the standard library's hash seeds do.
fn random_call_id() -> String {
    let (high, low) = (random_u64(), random_u64());
    format!("call_{high:016x}{:08x}", low >> 32)
}

/// A number that differs from call to call and from process to process; never for secrets.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests {
    use palisade_protocol::ToolCall;

    use super::*;

    #[test]
    fn an_id_is_kept_when_it_is_new_and_replaced_when_it_is_not() {
        let earlier = ToolCall { id: "call_1".into(), name: "Bash".into(), arguments: "{}".into() };
        let messages = [PromptMessage::Assistant {
            text: String::new(),
            reasoning: String::new(),
            calls: vec![earlier],
        }];
        let mut ids = CallIds::beside(&messages);
        assert_eq!(ids.adopt("call_2"), "call_2");
        let too_long = "x".repeat(CALL_ID_BYTES_MAX + 1);
        for unusable in ["call_1", "call_2", "", "with space", "zeile\n", "ü", &too_long] {
            let ours = ids.adopt(unusable);
            assert_eq!(ours.len(), "call_".len() + 24, "{ours}");
            assert!(ours.starts_with("call_") && ours[5..].bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_eq!(ids.taken.len(), 2 + 7, "all of them differ");
        let longest = "x".repeat(CALL_ID_BYTES_MAX);
        assert_eq!(ids.adopt(&longest), longest);
    }

    #[test]
    fn ours_alone_are_never_the_upstreams() {
        let mut ids = CallIds::ours();
        let first = ids.adopt("call_1");
        assert!(first != "call_1" && first != ids.adopt("call_1"));
    }
}

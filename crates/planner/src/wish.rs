//! What the user wants, read from the words: a document, a change to one, a small chore, or something that a
//! fixed program must refuse.

use crate::brief::{self, Brief};
use crate::catalog::KINDS;
use crate::chores::{self, Chore};
use crate::conversation::Conversation;
use crate::edit::{self, Edit};
use crate::mentions::{split_outline, without_files};
use crate::text::{find, words};

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    Deck(Box<Brief>),
    Edit(Edit),
    Chore(Chore),
    Refuse(String),
}

/// Verbs that ask for something to be made.
pub(crate) const MAKE: [&str; 19] = [
    "build", "make", "create", "prepare", "draft", "write", "generate", "turn", "design", "produce", "need",
    "want", "give", "put", "assemble", "compose", "convert", "do", "get",
];
const QUESTIONS: [&str; 17] = [
    "what",
    "why",
    "who",
    "whom",
    "when",
    "where",
    "which",
    "how",
    "is",
    "are",
    "was",
    "does",
    "did",
    "explain",
    "tell",
    "define",
    "translate",
];
const CODE: [&str; 11] =
    ["code", "script", "program", "function", "class", "app", "website", "api", "test", "query", "regex"];
/// What it can do, for whoever asked for something else.
pub(crate) const ABILITIES: &str = "What it can do: build a slide deck from your words and from csv, tsv, md or txt files \
in the workspace, add or remove a slide or change the title or the theme of a deck from this session, and run small \
chores (\"list files\", \"read <file>\", \"write <text> to <file>\", \"run `<command>`\").";

/// Reads the request.
pub(crate) fn of(conversation: &Conversation) -> Wish {
    let request = conversation.request.trim();
    if request.is_empty() {
        return Wish::Refuse(format!("There is no message to answer. {ABILITIES}"));
    }
    if let Some(chore) = chores::parse(request) {
        return Wish::Chore(chore);
    }
    let has_deck = edit::latest_spec(&conversation.earlier).is_some();
    match edit::parse(request) {
        Some(edit) if has_deck => return Wish::Edit(edit),
        // "Use the green theme to build a deck" asks for a new one.
        Some(_) if !words(request).iter().any(|word| MAKE.contains(&word.as_str())) => {
            return Wish::Refuse(format!("There is no deck of mine in this session to change. {ABILITIES}"));
        }
        _ => {}
    }
    if wants_document(conversation, request) {
        return Wish::Deck(Box::new(brief::read(request)));
    }
    Wish::Refuse(format!(
        "It cannot do this: that takes knowledge or judgement, and a fixed program has neither. {ABILITIES}"
    ))
}

fn wants_document(conversation: &Conversation, request: &str) -> bool {
    let (head, _) = split_outline(request);
    let words = words(&without_files(head));
    let politely = ["can you", "could you", "would you", "please"].iter().any(|p| find(request, p).is_some());
    if words.first().is_some_and(|first| QUESTIONS.contains(&first.as_str())) && !politely {
        return false;
    }
    let names: Vec<String> = crate::catalog::entries(&conversation.system)
        .iter()
        .flat_map(|entry| crate::text::words(&entry.name))
        .collect();
    let is_noun = |word: &String| {
        KINDS.iter().any(|kind| kind.contains(&word.as_str()))
            || (word.chars().count() > 3 && names.contains(word))
    };
    let Some(noun) = words.iter().position(is_noun) else { return false };
    let verb = words.iter().position(|word| MAKE.contains(&word.as_str()));
    let code_first =
        words.iter().position(|word| CODE.contains(&word.as_str())).is_some_and(|code| code < noun);
    (verb.is_some() || noun < 5) && !code_first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChatRequest;

    fn wish(text: &str) -> Wish {
        let system = "<skills>\n- slide-smith: Builds a deck (PPTX).\n- invoice-desk: Bills.\n</skills>";
        let body = serde_json::json!({"messages": [
            {"role": "system", "content": system}, {"role": "user", "content": text}]});
        of(&Conversation::of(&ChatRequest::from_json(body.to_string().as_bytes()).unwrap()))
    }

    #[test]
    fn what_needs_knowledge_is_refused() {
        for request in [
            "What is the capital of France?",
            "Write a Python script that makes slides",
            "Hello",
            "How do I build a deck?",
            "Translate this to French",
            "Write a poem",
            "add a slide about tea",
            "explain the presentation",
            "Fix the bug in app.py",
        ] {
            assert!(matches!(wish(request), Wish::Refuse(_)), "{request}");
        }
        for request in
            ["Can you make a deck on tea?", "write an invoice", "A short presentation about tea, please"]
        {
            assert!(matches!(wish(request), Wish::Deck(_)), "{request}");
        }
    }
}

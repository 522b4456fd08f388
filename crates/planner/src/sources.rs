//! The files that the request names: read by their names, looked for once when they are not there, and never
//! replaced by something else.

use serde_json::json;

use crate::Answer;
use crate::conversation::{Conversation, Done};
use crate::text::{tail, unnumbered};

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Whether the tool showed all of it.
    pub(crate) whole: bool,
}

/// How far the reading is.
#[derive(Debug)]
pub(crate) enum Sources {
    Loaded(Vec<Source>),
    /// More calls are needed first.
    Needs(Answer),
    /// One cannot be had; why.
    Missing(String),
}

/// What is known of the files in this turn.
pub(crate) fn gather(conversation: &Conversation, files: &[String]) -> Sources {
    let mut loaded = Vec::new();
    let mut needed = Answer::say("Some of the files are not where you said; looking for them.");
    for file in files {
        let base = file.rsplit('/').next().unwrap_or(file);
        let pattern = format!("**/{base}");
        let read = last(conversation, "Read", "file_path", file);
        if let Some((text, whole)) = read.and_then(|done| unnumbered(&done.result)) {
            loaded.push(Source { name: base.to_owned(), text, whole });
            continue;
        }
        let Some(found) = last(conversation, "Glob", "pattern", &pattern) else {
            needed = needed.call("Glob", json!({"pattern": pattern}));
            continue;
        };
        let path = found.result.lines().map(str::trim).find(|line| line.ends_with(base));
        let Some(path) = path else {
            let said = read.map_or_else(String::new, |done| tail(&done.result, 2, 300));
            return Sources::Missing(format!("`{file}` could not be read: {said}"));
        };
        match last(conversation, "Read", "file_path", path) {
            None => needed = needed.call("Read", json!({"file_path": path})),
            Some(done) => match unnumbered(&done.result) {
                Some((text, whole)) => loaded.push(Source { name: base.to_owned(), text, whole }),
                None => {
                    return Sources::Missing(format!(
                        "`{path}` could not be read: {}",
                        tail(&done.result, 2, 300)
                    ));
                }
            },
        }
    }
    if needed.calls.is_empty() { Sources::Loaded(loaded) } else { Sources::Needs(needed) }
}

fn last<'a>(conversation: &'a Conversation, tool: &str, argument: &str, value: &str) -> Option<&'a Done> {
    conversation.turn.iter().rev().find(|done| done.name == tool && done.argument(argument) == value)
}

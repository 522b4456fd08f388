//! Small chores with explicit words: list, read, write, run. The answer is what the tool returned, nothing more.

use serde_json::json;

use crate::Answer;
use crate::conversation::Conversation;
use crate::text::{find, quoted, tail, unnumbered};

/// One chore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chore {
    List { path: String },
    Read { path: String },
    Write { path: String, text: String },
    Run { command: String },
}

/// Output repeated to the user, in lines and characters; the whole of it stands in the tool's result.
const SHOWN_LINES_MAX: usize = 60;
const SHOWN_CHARS_MAX: usize = 4000;

/// Reads a chore; `None` when the words are not plainly one.
pub(crate) fn parse(request: &str) -> Option<Chore> {
    let request = request.trim();
    let words: Vec<&str> = request.split_whitespace().collect();
    let first = words.first()?.to_lowercase();
    match first.as_str() {
        "run" | "execute" => {
            let (_, rest) = request.split_once('`')?;
            let (command, _) = rest.rsplit_once('`')?;
            let command = command.trim_matches('`').trim();
            (!command.is_empty()).then(|| Chore::Run { command: command.into() })
        }
        "list" | "ls" if words.len() <= 6 => {
            let path = words.iter().skip(1).find_map(|word| path_like(word));
            let plain = words.iter().skip(1).all(|word| {
                path_like(word).is_some()
                    || ["files", "the", "all", "my", "in", "workspace", "here", "please", "folder"]
                        .contains(&word.trim_end_matches('.').to_lowercase().as_str())
            });
            let folder = words
                .iter()
                .rposition(|word| word.eq_ignore_ascii_case("in"))
                .and_then(|at| words.get(at + 1));
            let named = folder.filter(|name| !["the", "workspace"].contains(&name.trim_end_matches('.')));
            if !plain && named.is_none() {
                return None;
            }
            let named = named.map(|name| name.trim_end_matches(['.', ',']).trim_matches('`').to_owned());
            Some(Chore::List { path: path.or(named).unwrap_or_else(|| ".".into()) })
        }
        "read" | "show" | "cat" | "open" | "print" if words.len() <= 5 => {
            Some(Chore::Read { path: words.iter().skip(1).find_map(|word| path_like(word))? })
        }
        "write" | "save" => {
            let at = request.rfind(" to ").or_else(|| request.rfind(" into "))?;
            let target = request[at..].split_whitespace().nth(1)?;
            let one_word_left = request[at..].split_whitespace().count() == 2;
            let path = path_like(target).filter(|path| one_word_left && find(path, ".pptx").is_none())?;
            let text = request.get(first.len()..at)?.trim();
            let text = text.trim_matches(|c: char| "\"“”`'".contains(c));
            (!text.is_empty()).then(|| Chore::Write { path, text: text.into() })
        }
        _ => None,
    }
}

fn path_like(word: &str) -> Option<String> {
    let path = word.trim_matches(|c: char| "\"“”`',;:".contains(c)).trim_end_matches(['.', '?', '!']);
    let named = path.contains('/')
        || path.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && !end.is_empty());
    (named && path.len() > 1).then(|| path.to_owned())
}

/// The call, and after it the report.
pub(crate) fn carry_out(conversation: &Conversation, chore: &Chore) -> Answer {
    let tool = match chore {
        Chore::List { .. } | Chore::Run { .. } => "Bash",
        Chore::Read { .. } => "Read",
        Chore::Write { .. } => "Write",
    };
    if !conversation.has_tool(tool) {
        return Answer::say(format!(
            "This needs the tool {tool}, which is not on offer here, so nothing was done."
        ));
    }
    match conversation.turn.last() {
        None => begin(chore),
        Some(done) => Answer::say(report(chore, &done.result)),
    }
}

fn begin(chore: &Chore) -> Answer {
    match chore {
        Chore::List { path } => {
            Answer::say(format!("Listing {path}.")).bash(format!("ls -la -- {}", quoted(path)))
        }
        Chore::Read { path } => {
            Answer::say(format!("Reading {path}.")).call("Read", json!({"file_path": path}))
        }
        Chore::Write { path, text } => Answer::say(format!("Writing {path}."))
            .call("Write", json!({"file_path": path, "content": format!("{text}\n")})),
        Chore::Run { command } => Answer::say("Running the command as given.").bash(command),
    }
}

fn report(chore: &Chore, result: &str) -> String {
    let shown = tail(result, SHOWN_LINES_MAX, SHOWN_CHARS_MAX);
    let shown = if shown.trim().is_empty() { "(no output)".to_owned() } else { shown };
    match chore {
        Chore::Run { .. } => format!("The command's output:\n\n{}", fenced(&shown)),
        Chore::List { path } => format!("What `ls` says of {path}:\n\n{}", fenced(&shown)),
        Chore::Read { path } => match unnumbered(result) {
            Some((text, _)) => {
                format!("{path} holds:\n\n{}", fenced(&tail(&text, SHOWN_LINES_MAX, SHOWN_CHARS_MAX)))
            }
            None => format!("{path} was not shown; the tool said: {shown}"),
        },
        Chore::Write { .. } => format!("The tool said: {shown}"),
    }
}

fn fenced(text: &str) -> String {
    // Longer than any run of backticks inside.
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chores_are_explicit() {
        let list = |path: &str| Some(Chore::List { path: path.into() });
        let read = |path: &str| Some(Chore::Read { path: path.into() });
        let run = |command: &str| Some(Chore::Run { command: command.into() });
        for (request, expected) in [
            ("list files", list(".")),
            ("List the files in output.", list("output")),
            ("ls data/raw", list("data/raw")),
            ("read notes.md", read("notes.md")),
            ("Show me output/a.txt", read("output/a.txt")),
            ("run `echo hi`", run("echo hi")),
            ("Run the command `echo \"a b\"` now", run("echo \"a b\"")),
            (
                "write hello world to notes.txt",
                Some(Chore::Write { path: "notes.txt".into(), text: "hello world".into() }),
            ),
            ("write a deck from a.csv to output/x.pptx", None),
            ("write a pitch deck to impress investors.", None),
            ("run the numbers", None),
            ("list the reasons for the fall of Rome", None),
            ("read the room", None),
        ] {
            assert_eq!(parse(request), expected, "{request}");
        }
    }
}

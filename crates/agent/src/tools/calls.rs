//! From a call's arguments to what it asks for, tool by tool: several ways of saying one thing become the one that
//! the room which does it knows.

use palisade_hand_protocol::{Edit, FileOp, Replacement};
use palisade_protocol::limits::{BASH_TIMEOUT_DEFAULT_MS, BASH_TIMEOUT_MAX_MS};
use palisade_protocol::{ToolCall, ToolOutput};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::{self, Arguments, quoted};
use super::{Action, Bash, spelling};
use crate::web_fetch;

/// A `timeout` below this is in seconds: other agents have it in milliseconds or in seconds, and nobody gives a command
/// less than a second.
const TIMEOUT_MS_MIN: f64 = 1_000.0;

/// What the call asks of our tool `tool`; the error says what is wrong with it.
pub(super) fn read(tool: &str, call: &ToolCall) -> Result<Action, String> {
    let mut input = arguments::parse(&call.arguments)?;
    let tool = if tool == spelling::TEXT_EDITOR { of_the_text_editor(&mut input)? } else { tool };
    if spelling::lists_a_folder(&call.name) {
        input.entry("pattern").or_insert_with(|| "*".into());
    }
    let mut read = |known| arguments::read(std::mem::take(&mut input), known);
    match tool {
        "Bash" => bash(&read(spelling::BASH)?).map(Action::Bash),
        "Read" => lines(read(spelling::READ)?).and_then(typed).map(FileOp::Read).map(Action::File),
        "Write" => typed(read(spelling::WRITE)?).map(FileOp::Write).map(Action::File),
        "Edit" => edit(read(spelling::EDIT)?).map(FileOp::Edit).map(Action::File),
        "Glob" => typed(read(spelling::GLOB)?).map(FileOp::Glob).map(Action::File),
        "Grep" => typed(grep(read(spelling::GREP)?)).map(FileOp::Grep).map(Action::File),
        "Skill" => Ok(Action::Skill { name: text(&read(spelling::SKILL)?, "name") }),
        "TodoWrite" => todos(&read(spelling::TODO_WRITE)?),
        _ => web_fetch::command(&text(&read(spelling::WEB_FETCH)?, "url")).map(Action::Bash),
    }
}

fn typed<T: DeserializeOwned>(input: Arguments) -> Result<T, String> {
    serde_json::from_value(Value::Object(input)).map_err(|error| error.to_string())
}

fn text(input: &Arguments, name: &str) -> String {
    input.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(input: &Arguments, name: &str) -> bool {
    input.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// One tool of others is four of ours.
fn of_the_text_editor(input: &mut Arguments) -> Result<&'static str, String> {
    match input.remove("command").as_ref().and_then(Value::as_str) {
        Some("view") => Ok("Read"),
        Some("create") => Ok("Write"),
        Some("str_replace") => Ok("Edit"),
        _ => Err("its command must be view, create or str_replace; use Edit to insert text".into()),
    }
}

fn bash(input: &Arguments) -> Result<Bash, String> {
    let number = |name: &str| input.get(name).and_then(Value::as_f64);
    let either = number("timeout").map(|timeout| match timeout {
        // With most agents that have it: as long as may be.
        0.0 => BASH_TIMEOUT_MAX_MS as f64,
        seconds if seconds < TIMEOUT_MS_MIN => seconds * 1_000.0,
        ms => ms,
    });
    let asked = number("timeout_ms").or(number("timeout_s").map(|seconds| seconds * 1_000.0)).or(either);
    // A cast of a float stops at the ends of the type's range.
    let timeout_ms = asked.map_or(BASH_TIMEOUT_DEFAULT_MS, |ms| ms as u64).clamp(1, BASH_TIMEOUT_MAX_MS);
    let mut command = text(input, "command");
    if command.contains('\0') {
        return Err("the command has a NUL character in it".into());
    }
    if let Some(folder) = input.get("cwd").and_then(Value::as_str) {
        let folder = match folder.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!("\"$HOME\"{}", quoted_rest(rest))
            }
            _ => quoted(folder),
        };
        // On the same line, so that the shell counts the command's own lines.
        command = format!("cd -- {folder} || exit; {command}");
    }
    Ok(Bash { command, timeout_ms, background: flag(input, "background") })
}

fn quoted_rest(rest: &str) -> String {
    if rest.is_empty() { String::new() } else { quoted(rest) }
}

/// `view_range` and `end_line` become `offset` and `limit`.
fn lines(mut input: Arguments) -> Result<Arguments, String> {
    if let Some(range) = input.remove("view_range") {
        let numbers =
            range.as_array().and_then(|range| range.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
        let Some([first, last]) = numbers.as_deref() else {
            return Err("\"view_range\" must be the numbers of the first and the last line".into());
        };
        input.insert("offset".into(), (*first).into());
        input.insert("end_line".into(), (*last).into());
    }
    let Some(last) = input.remove("end_line").and_then(|last| last.as_i64()) else { return Ok(input) };
    let first = input.get("offset").and_then(Value::as_i64).unwrap_or(1).max(1);
    match last {
        // The end, as the agents have it that have such a range.
        -1 => {
            input.insert("limit".into(), u64::MAX.into());
        }
        last if last >= first => {
            input.insert("limit".into(), (last - first + 1).into());
        }
        _ => return Err(format!("the last line, {last}, comes before the first, {first}")),
    }
    Ok(input)
}

/// One replacement, or the list `edits`.
fn edit(mut input: Arguments) -> Result<Edit, String> {
    let file_path = text(&input, "file_path");
    let edits = match input.remove("edits") {
        Some(Value::Array(_)) if input.contains_key("old_string") || input.contains_key("new_string") => {
            return Err("it takes either \"edits\" or \"old_string\" and \"new_string\"".into());
        }
        Some(Value::Array(entries)) if entries.is_empty() => return Err("\"edits\" is empty".into()),
        Some(Value::Array(entries)) => {
            let all = flag(&input, "replace_all");
            let numbered = entries.into_iter().enumerate();
            numbered
                .map(|(at, entry)| replacement(entry, all).map_err(|what| format!("edits[{at}]: {what}")))
                .collect::<Result<_, _>>()?
        }
        _ => {
            input.remove("file_path");
            vec![replacement(Value::Object(input), false)?]
        }
    };
    Ok(Edit { file_path, edits })
}

fn replacement(entry: Value, all: bool) -> Result<Replacement, String> {
    let Value::Object(mut entry) = entry else { return Err("it must be an object".into()) };
    entry.entry("replace_all").or_insert(all.into());
    typed(arguments::read(entry, spelling::REPLACEMENT)?)
}

fn grep(mut input: Arguments) -> Arguments {
    let mut take = |name: &str| input.remove(name);
    let is_true = |value: Option<Value>| value.is_some_and(|value| value == Value::Bool(true));
    let (literal, word) = (is_true(take("literal")), is_true(take("word")));
    let (files_only, count) = (is_true(take("files_only")), is_true(take("count")));
    let (context, exclude, case_sensitive) = (take("context"), take("exclude"), take("case_sensitive"));
    let mut pattern = text(&input, "pattern");
    if literal {
        pattern = escaped(&pattern);
    }
    if word {
        pattern = format!(r"\b(?:{pattern})\b");
    }
    input.insert("pattern".into(), pattern.into());
    for (asked, mode) in [(files_only, "files_with_matches"), (count, "count")] {
        if asked {
            input.entry("output_mode").or_insert(mode.into());
        }
    }
    if let Some(lines) = context {
        input.entry("before").or_insert(lines.clone());
        input.entry("after").or_insert(lines);
    }
    if case_sensitive == Some(Value::Bool(false)) {
        input.entry("ignore_case").or_insert(true.into());
    }
    if let Some(exclude) = exclude.as_ref().and_then(Value::as_str) {
        let kept =
            input.get("glob").and_then(Value::as_str).map_or_else(String::new, |glob| format!("{glob},"));
        let without: Vec<String> =
            exclude.split(',').map(|one| format!("!{}", one.trim().trim_start_matches('!'))).collect();
        input.insert("glob".into(), format!("{kept}{}", without.join(",")).into());
    }
    input
}

/// The regular expression that matches just this text.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The plan is in the conversation, where the model sees it; nothing else is to be done.
fn todos(input: &Arguments) -> Result<Action, String> {
    let entries = input.get("todos").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let content = |entry: &Value| match entry {
        Value::String(text) => Some(text.clone()),
        entry => spelling::TODO_CONTENT.iter().find_map(|name| entry.get(*name)?.as_str()).map(str::to_owned),
    };
    let status =
        |entry: &Value| entry.get("status").and_then(Value::as_str).unwrap_or_default().replace('-', "_");
    let mut steps = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        steps.push((content(entry).ok_or_else(|| format!("todos[{at}] has no \"content\""))?, status(entry)));
    }
    let is_done = |status: &str| matches!(status, "completed" | "done" | "complete");
    let done = steps.iter().filter(|(_, status)| is_done(status)).count();
    let now = steps.iter().find(|(_, status)| status == "in_progress");
    let noted = match now {
        Some((now, _)) => format!("Noted: {done} of {} done; now: {now}", steps.len()),
        None => format!("Noted: {done} of {} done.", steps.len()),
    };
    Ok(Action::Answered(ToolOutput::ok(noted)))
}

#[cfg(test)]
pub(super) fn one_edit(file_path: &str, old: &str, new: &str, all: bool) -> Action {
    let edit = serde_json::json!({"old_string": old, "new_string": new, "replace_all": all});
    let edits = serde_json::from_value(Value::Array(vec![edit])).unwrap();
    Action::File(FileOp::Edit(Edit { file_path: file_path.into(), edits }))
}

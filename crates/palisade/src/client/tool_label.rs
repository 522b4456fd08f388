//! A tool call in one line: its name and the part of its input that says what it is about.
//!
//! Inputs are a model's; a field that is missing or of another type is left out, never an error.

use serde_json::Value;

use super::text;

/// What stands after the tool's name; empty when there is nothing to say.
pub(super) fn label(name: &str, input: &Value, columns_max: usize) -> String {
    let field = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or("");
    let full = match name {
        "Bash" => joined_lines(field("command")),
        "Read" => format!("{}{}", path(field("file_path")), lines_asked(input)),
        "Write" => format!("{} ({})", path(field("file_path")), lines(field("content"))),
        "Edit" => format!(
            "{} (−{} +{} lines)",
            path(field("file_path")),
            field("old_string").lines().count(),
            field("new_string").lines().count()
        ),
        "Glob" | "Grep" => format!("{}{}", field("pattern"), within(path(field("path")))),
        "Skill" => field("name").to_owned(),
        "Task" => field("description").to_owned(),
        "TodoWrite" => todos(input),
        "WebSearch" => field("query").to_owned(),
        "WebFetch" => field("url").to_owned(),
        _ => match input {
            Value::Null => String::new(),
            other => other.to_string(),
        },
    };
    text::one_line(&full, columns_max)
}

/// Whether the tool's result is output that a person wants to see even when it went well.
pub(super) fn shows_output(name: &str) -> bool {
    name == "Bash"
}

/// Whether the result of the tool is a list whose length says something.
pub(super) fn counts_lines(name: &str) -> bool {
    matches!(name, "Glob" | "Grep")
}

/// A script on one line; the first line alone often only prepares what matters.
fn joined_lines(command: &str) -> String {
    let lines = command.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ↵ ")
}

fn path(path: &str) -> &str {
    path.strip_prefix("/workspace/").unwrap_or(path)
}

fn within(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in {path}") }
}

fn lines(content: &str) -> String {
    format!("{}, {}", text::lines(content.lines().count() as u64), text::size(content.len() as u64))
}

fn lines_asked(input: &Value) -> String {
    let number = |name: &str| input.get(name).and_then(Value::as_u64);
    match (number("offset"), number("limit")) {
        (None | Some(0 | 1), None) => String::new(),
        (offset, None) => format!(" from line {}", offset.unwrap_or(1)),
        (offset, Some(limit)) => {
            let first = offset.unwrap_or(1).max(1);
            format!(" lines {first}–{}", first.saturating_add(limit).saturating_sub(1))
        }
    }
}

fn todos(input: &Value) -> String {
    let Some(todos) = input.get("todos").and_then(Value::as_array) else { return String::new() };
    let status = |todo: &Value| todo.get("status").and_then(Value::as_str).unwrap_or("").to_owned();
    let done = todos.iter().filter(|todo| status(todo) == "completed").count();
    let current = todos.iter().find(|todo| status(todo) == "in_progress");
    let current = current.and_then(|todo| todo.get("content")).and_then(Value::as_str);
    let progress = format!("{done} of {} done", todos.len());
    current.map_or(progress.clone(), |current| format!("{progress}, now: {current}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_tool_says_what_it_is_about() {
        let cases = [
            (
                "Bash",
                json!({"command": "\n  python3 build.py <<'E'\nx\nE\n"}),
                "python3 build.py <<'E' ↵ x ↵ E",
            ),
            ("Read", json!({"file_path": "/workspace/a.md", "offset": 11, "limit": 10}), "a.md lines 11–20"),
            ("Read", json!({"file_path": "/skills/x/SKILL.md"}), "/skills/x/SKILL.md"),
            ("Write", json!({"file_path": "a.json", "content": "{}\n"}), "a.json (1 line, 3 B)"),
            ("Edit", json!({"file_path": "a", "old_string": "x", "new_string": "y\nz"}), "a (−1 +2 lines)"),
            ("Grep", json!({"pattern": "fn .*", "path": "/workspace/src"}), "fn .* in src"),
            ("Skill", json!({"name": "pptx-builder"}), "pptx-builder"),
            (
                "TodoWrite",
                json!({"todos": [{"content": "a", "status": "completed"}, {"content": "b", "status": "in_progress"}]}),
                "1 of 2 done, now: b",
            ),
            ("Unknown", json!({"a": [1]}), "{\"a\":[1]}"),
            ("Bash", json!("not an object"), ""),
            ("Bash", json!({"command": 5}), ""),
        ];
        for (name, input, expected) in cases {
            assert_eq!(label(name, &input, 100), expected, "{name} {input}");
        }
    }
}

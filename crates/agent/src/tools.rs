//! The tools of the agent: what models are told of them, and what a call asks for once its arguments are read.

use palisade_hand_protocol::FileOp;
use palisade_protocol::limits::{
    BASH_TIMEOUT_DEFAULT_MS, BASH_TIMEOUT_MAX_MS, TOOL_INPUT_BYTES_MAX, TOOL_OUTPUT_BYTES_MAX,
};
use palisade_protocol::{ToolCall, ToolDefinition, ToolOutput};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::Network;
use crate::{SessionContext, SkillEntry, web_fetch};

/// What a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run a command in the sandbox.
    Bash(Bash),
    /// Do something with files, in the sandbox.
    File(FileOp),
    /// Show a skill's instructions.
    Skill {
        /// Which.
        name: String,
    },
    /// Nothing is left to do: the answer is known already (a plan was noted, the arguments were wrong).
    Answered(ToolOutput),
}

/// The input of Bash (decision 18).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Bash {
    /// Given to `bash -c` in a fresh shell.
    pub command: String,
    /// Its deadline.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// Keeps running after the call has returned, for as long as the session.
    #[serde(default)]
    pub background: bool,
}

fn default_timeout() -> u64 {
    BASH_TIMEOUT_DEFAULT_MS
}

#[derive(Deserialize)]
struct WebFetchInput {
    url: String,
}

#[derive(Deserialize)]
struct SkillInput {
    name: String,
}

#[derive(Deserialize)]
struct TodoInput {
    todos: Vec<Todo>,
}

#[derive(Deserialize)]
struct Todo {
    content: String,
    #[serde(default)]
    status: String,
}

/// Names that are the agent's own, now or later: no client-side tool may take one.
pub const NAMES: [&str; 11] =
    ["Bash", "Read", "Write", "Edit", "Glob", "Grep", "Skill", "Task", "TodoWrite", "WebFetch", "WebSearch"];

/// Tools that change nothing: a call of theirs that was interrupted may simply run again.
pub fn is_read_only(name: &str) -> bool {
    matches!(name, "Read" | "Glob" | "Grep" | "Skill" | "TodoWrite" | "WebFetch")
}

/// What the model is told of a call with more arguments than are taken, whoever was to run it.
pub fn too_large(call: &ToolCall) -> Option<ToolOutput> {
    let bytes = call.arguments.len();
    let message = format!(
        "The call was not run: its arguments have {bytes} bytes, and at most {TOOL_INPUT_BYTES_MAX} are taken. Do it in parts."
    );
    (bytes > TOOL_INPUT_BYTES_MAX).then(|| ToolOutput::error("tool.input_too_large", message))
}

/// Reads a call's arguments. Whatever the model wrote, this has an answer: what is wrong is told to the model.
pub fn action(call: &ToolCall) -> Action {
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
    if let Some(refused) = too_large(call) {
        return Action::Answered(refused);
    }
    if let Some(read) = FileOp::from_tool_call(&call.name, arguments) {
        return read.map_or_else(|error| bad_input(&call.name, &error.to_string()), Action::File);
    }
    let input = match serde_json::from_str::<Value>(arguments) {
        Ok(Value::Object(input)) => Value::Object(input),
        Ok(_) => return bad_input(&call.name, "the arguments must be a JSON object"),
        Err(error) => return bad_input(&call.name, &format!("the arguments are not JSON: {error}")),
    };
    match call.name.as_str() {
        "Bash" => read(call, input, |mut bash: Bash| {
            bash.timeout_ms = bash.timeout_ms.clamp(1, BASH_TIMEOUT_MAX_MS);
            Action::Bash(bash)
        }),
        "WebFetch" => read(call, input, |page: WebFetchInput| match web_fetch::command(&page.url) {
            Ok(bash) => Action::Bash(bash),
            Err(what) => bad_input("WebFetch", &what),
        }),
        "Skill" => read(call, input, |skill: SkillInput| Action::Skill { name: skill.name }),
        "TodoWrite" => {
            read(call, input, |list: TodoInput| Action::Answered(ToolOutput::ok(noted(&list.todos))))
        }
        unknown => Action::Answered(ToolOutput::error(
            "tool.unknown",
            format!("There is no tool named {unknown:?}."),
        )),
    }
}

fn read<T: DeserializeOwned>(call: &ToolCall, input: Value, then: impl FnOnce(T) -> Action) -> Action {
    match serde_json::from_value(input) {
        Ok(input) => then(input),
        Err(error) => bad_input(&call.name, &error.to_string()),
    }
}

fn bad_input(tool: &str, what: &str) -> Action {
    Action::Answered(ToolOutput::error("tool.bad_input", format!("{tool} was not run: {what}.")))
}

fn noted(todos: &[Todo]) -> String {
    let done = todos.iter().filter(|todo| todo.status == "completed").count();
    match todos.iter().find(|todo| todo.status == "in_progress") {
        Some(now) => format!("Noted: {done} of {} done; now: {}", todos.len(), now.content),
        None => format!("Noted: {done} of {} done.", todos.len()),
    }
}

/// What a model is offered: Skill only when there are skills, which it names; WebFetch only to tenants with the public internet.
pub fn definitions(context: &SessionContext) -> Vec<ToolDefinition> {
    let mut tools =
        vec![bash(&context.network), read_file(), write_file(), edit_file(), glob(), grep(), todo_write()];
    if !context.skills.is_empty() {
        tools.push(skill(&context.skills));
    }
    if context.network == Network::Public {
        tools.push(web_fetch());
    }
    tools
}

fn tool(name: &str, description: String, properties: Value, required: &[&str]) -> ToolDefinition {
    ToolDefinition {
        name: name.into(),
        description,
        parameters: json!({"type": "object", "properties": properties, "required": required}),
    }
}

fn bash(network: &Network) -> ToolDefinition {
    let network = match network {
        Network::None => "There is no network.".to_owned(),
        Network::Hosts(hosts) => {
            format!("Of the network only these hosts are reached: {}.", hosts.join(", "))
        }
        Network::Public => {
            "Public hosts are reached over HTTP and HTTPS, through a proxy that programs find by \
                            themselves; private addresses are not."
                .to_owned()
        }
    };
    tool(
        "Bash",
        format!(
            "Runs a bash command in the sandbox and returns its output and exit code. Each call is a fresh shell in \
             /workspace: `cd` and variables do not carry over. Output beyond {} KiB is cut from the middle. {network}",
            TOOL_OUTPUT_BYTES_MAX / 1024
        ),
        json!({
            "command": {"type": "string", "description": "The command."},
            "timeout_ms": {"type": "integer", "description": format!(
                "Deadline in milliseconds; default {BASH_TIMEOUT_DEFAULT_MS}, at most {BASH_TIMEOUT_MAX_MS}.")},
            "background": {"type": "boolean", "description":
                "Keep it running after the call returns, until the session ends. For servers."},
        }),
        &["command"],
    )
}

fn read_file() -> ToolDefinition {
    tool(
        "Read",
        "Reads a text file with line numbers. Relative paths are relative to /workspace.".into(),
        json!({
            "file_path": {"type": "string"},
            "offset": {"type": "integer", "description": "First line to show, from 1."},
            "limit": {"type": "integer", "description": "How many lines; default 2000."},
        }),
        &["file_path"],
    )
}

fn write_file() -> ToolDefinition {
    tool(
        "Write",
        "Writes a file whole, making its folders. Replaces what was there.".into(),
        json!({"file_path": {"type": "string"}, "content": {"type": "string"}}),
        &["file_path", "content"],
    )
}

fn edit_file() -> ToolDefinition {
    tool(
        "Edit",
        "Replaces an exact text in a file. The old text must occur exactly once, unless replace_all is set."
            .into(),
        json!({
            "file_path": {"type": "string"},
            "old_string": {"type": "string"},
            "new_string": {"type": "string"},
            "replace_all": {"type": "boolean"},
        }),
        &["file_path", "old_string", "new_string"],
    )
}

fn glob() -> ToolDefinition {
    tool(
        "Glob",
        "Finds files by a pattern such as **/*.csv, newest first.".into(),
        json!({
            "pattern": {"type": "string"},
            "path": {"type": "string", "description": "Where to look; default /workspace."},
        }),
        &["pattern"],
    )
}

fn grep() -> ToolDefinition {
    tool(
        "Grep",
        "Searches file contents by a regular expression.".into(),
        json!({
            "pattern": {"type": "string"},
            "path": {"type": "string", "description": "A file or folder; default /workspace."},
            "glob": {"type": "string", "description": "Only files whose name matches, such as *.py."},
            "output_mode": {"type": "string", "enum": ["files_with_matches", "content", "count"]},
        }),
        &["pattern"],
    )
}

fn todo_write() -> ToolDefinition {
    tool(
        "TodoWrite",
        "Notes the plan for longer work as a list of steps. Send the whole list each time.".into(),
        json!({"todos": {"type": "array", "items": {"type": "object", "required": ["content", "status"], "properties": {
            "content": {"type": "string"},
            "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
        }}}}),
        &["todos"],
    )
}

fn web_fetch() -> ToolDefinition {
    tool(
        "WebFetch",
        "Fetches one page and shows it as Markdown text. For what is not text, or long, use curl in Bash."
            .into(),
        json!({"url": {"type": "string", "description": "Beginning with https:// or http://."}}),
        &["url"],
    )
}

fn skill(skills: &[SkillEntry]) -> ToolDefinition {
    let names: Vec<&str> = skills.iter().map(|skill| skill.name.as_str()).collect();
    tool(
        "Skill",
        "Shows the instructions of a skill from the catalog. Call it before the work that the skill is for."
            .into(),
        json!({"name": {"type": "string", "enum": names}}),
        &["name"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action_of(name: &str, arguments: &str) -> Action {
        action(&ToolCall { id: "call_1".into(), name: name.into(), arguments: arguments.into() })
    }

    #[test]
    fn every_offered_tool_is_understood() {
        let skills = [SkillEntry { name: "deck".into(), description: "d".into() }];
        let context =
            SessionContext { skills: skills.into(), network: Network::Public, ..SessionContext::default() };
        for offered in definitions(&context) {
            let answered = action_of(&offered.name, "{}");
            let known =
                !matches!(&answered, Action::Answered(out) if out.code.as_deref() == Some("tool.unknown"));
            assert!(known, "{}", offered.name);
        }
        let bare = definitions(&SessionContext::default());
        assert!(bare.iter().all(|tool| tool.name != "Skill"), "no skills, no Skill");
        assert!(bare.iter().all(|tool| !tool.name.starts_with("Web")), "no network, no web");
    }

    #[test]
    fn arguments_have_a_bound() {
        let bytes = |bytes: usize| {
            let frame = json!({"file_path": "a", "content": ""}).to_string().len();
            json!({"file_path": "a", "content": "x".repeat(bytes - frame)}).to_string()
        };
        assert!(matches!(action_of("Write", &bytes(TOOL_INPUT_BYTES_MAX)), Action::File(_)));
        let Action::Answered(output) = action_of("Write", &bytes(TOOL_INPUT_BYTES_MAX + 1)) else {
            panic!("it is run")
        };
        assert_eq!(output.code.as_deref(), Some("tool.input_too_large"));
        assert!(output.is_error && output.content.contains("2097152"), "{}", output.content);
    }

    #[test]
    fn whatever_a_model_writes_has_an_answer() {
        for (name, arguments, code) in [
            ("Bash", "", "tool.bad_input"),
            ("Bash", "{\"command\":", "tool.bad_input"),
            ("Bash", "[]", "tool.bad_input"),
            ("Bash", "{\"command\": 5}", "tool.bad_input"),
            ("Read", "{}", "tool.bad_input"),
            ("Nmap", "{}", "tool.unknown"),
        ] {
            match action_of(name, arguments) {
                Action::Answered(output) => {
                    assert!(output.is_error);
                    assert_eq!(output.code.as_deref(), Some(code), "{name} {arguments}");
                }
                other => panic!("{name} {arguments}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_deadline_stays_within_its_bounds() {
        let with = |ms: u64| action_of("Bash", &format!("{{\"command\":\"true\",\"timeout_ms\":{ms}}}"));
        for (asked, given) in [(0, 1), (5, 5), (u64::MAX, BASH_TIMEOUT_MAX_MS)] {
            assert!(matches!(with(asked), Action::Bash(bash) if bash.timeout_ms == given));
        }
    }
}

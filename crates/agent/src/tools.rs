//! The tools of the agent: what models are told of them, and what a call asks for once its arguments are read.

mod arguments;
mod calls;
mod spelling;
#[cfg(test)]
mod tests;

use palisade_hand_protocol::FileOp;
use palisade_protocol::limits::{
    BASH_TIMEOUT_DEFAULT_MS, BASH_TIMEOUT_MAX_MS, TOOL_INPUT_BYTES_MAX, TOOL_OUTPUT_BYTES_MAX,
};
use palisade_protocol::{ToolCall, ToolDefinition, ToolOutput};
use serde_json::{Value, json};

use crate::context::Network;
use crate::{SessionContext, SkillEntry};

pub(crate) use arguments::quoted;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bash {
    /// Given to a fresh shell.
    pub command: String,
    /// Its deadline.
    pub timeout_ms: u64,
    /// Keeps running after the call has returned, for as long as the session.
    pub background: bool,
}

/// Names that are the agent's own, now or later: no client-side tool may take one.
pub const NAMES: [&str; 11] =
    ["Bash", "Read", "Write", "Edit", "Glob", "Grep", "Skill", "Task", "TodoWrite", "WebFetch", "WebSearch"];

/// Our name of the tool that a model calls `name`: in another case, or as another agent has it.
pub fn name_of(name: &str) -> Option<&'static str> {
    spelling::tool(name)
}

/// Tools that change nothing: a call of theirs that was interrupted may simply run again.
pub fn is_read_only(name: &str) -> bool {
    matches!(name_of(name), Some("Read" | "Glob" | "Grep" | "Skill" | "TodoWrite" | "WebFetch"))
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
    if let Some(refused) = too_large(call) {
        return Action::Answered(refused);
    }
    let Some(tool) = name_of(&call.name) else {
        let message = format!(
            "There is no tool named {:?}. There are Bash, Read, Write, Edit, Glob, Grep and TodoWrite, and what else you were \
             told of.",
            call.name
        );
        return Action::Answered(ToolOutput::error("tool.unknown", message));
    };
    calls::read(tool, call).unwrap_or_else(|what| {
        Action::Answered(ToolOutput::error("tool.bad_input", format!("{tool} was not run: {what}.")))
    })
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
            "Public hosts are reached over HTTP and HTTPS, through a proxy that most programs find by \
             themselves (HTTPS_PROXY; others need http://127.0.0.1:3128); private addresses, ssh and databases are not."
                .to_owned()
        }
    };
    tool(
        "Bash",
        format!(
            "Runs a bash command in the sandbox and returns its output and exit code. Each call is a fresh shell in \
             /workspace: `cd` and variables do not carry over, and what it leaves running ends with it. Nobody answers \
             prompts. There is no root; pip and npm -g install below your home. Output beyond {} KiB is cut from the \
             middle. {network}",
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
            "column": {"type": "integer", "description": "First character to show of a very long line, from 1."},
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
            "glob": {"type": "string", "description": "Only files that match, such as *.py,*.js or !*.min.js."},
            "type": {"type": "string", "description": "Only files of this type, such as py, js or rust."},
            "output_mode": {"type": "string", "enum": ["files_with_matches", "content", "count"]},
            "ignore_case": {"type": "boolean"},
            "context": {"type": "integer", "description": "Lines to show around each match."},
            "multiline": {"type": "boolean", "description": "Let a match go over several lines."},
            "head_limit": {"type": "integer", "description": "How many lines of the result to show."},
            "offset": {"type": "integer", "description": "How many of them to pass over first."},
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

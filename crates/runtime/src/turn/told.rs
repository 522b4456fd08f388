//! What a model is told of a command beside its output: how it ended, what was changed in what is shown, what else happened
//! in the sandbox, and what to do about the failures that say too little themselves.

use palisade_agent::Network;
use palisade_protocol::ToolOutput;
use palisade_sandbox::{Note, RunExit};

/// All notes of one result, in bytes.
const NOTES_BYTES_MAX: usize = 3 * 1024;

/// A command's result.
pub(super) fn outcome(text: String, exit: RunExit, timeout_ms: u64) -> ToolOutput {
    let said = if text.is_empty() { "(no output)".to_owned() } else { text };
    let failed = |how: String| ToolOutput { content: format!("{said}\n[{how}]"), is_error: true, code: None };
    match exit {
        RunExit::Code(0) => ToolOutput::ok(said),
        RunExit::TimedOut => {
            ToolOutput::error("tool.timeout", format!("{said}\n[killed: it ran longer than {timeout_ms} ms]"))
        }
        RunExit::Background { pid, log } => {
            let message = format!(
                "Running in the background as process {pid}; its output goes to {log}. `kill {pid}` ends it; its end is \
                 told with the call after that."
            );
            ToolOutput::ok(message)
        }
        other => failed(ending(&other)),
    }
}

fn ending(exit: &RunExit) -> String {
    match exit {
        RunExit::Code(code) => format!("exit code {code}"),
        RunExit::Signal(signal) => format!("killed by signal {signal}"),
        RunExit::OutOfMemory => "killed: the sandbox ran out of memory".to_owned(),
        RunExit::TimedOut => "killed: its time was over".to_owned(),
        RunExit::Background { .. } => "running".to_owned(),
    }
}

/// What else happened, as lines in brackets.
pub(super) fn notes(notes: &[Note]) -> Vec<String> {
    let line = |note: &Note| match note {
        Note::Ended(names) => format!(
            "Still running when the command ended, and ended with it: {}. To keep a program running, start it with \
             \"background\": true (not with & or nohup).",
            names.join(", ")
        ),
        Note::Adrift(names) => {
            format!(
                "Running on until this turn ends: {}. To keep a program longer, start it with \"background\": true.",
                names.join(", ")
            )
        }
        Note::Lost(count) => format!(
            "The sandbox was started anew. What ran in the background ended with the one before ({count}); start it again \
             where it is needed."
        ),
        Note::Background { pid, exit, log, tail } => {
            let tail = tail.trim();
            let tail = if tail.is_empty() {
                "It printed nothing.".to_owned()
            } else {
                format!("The end of {log}:\n{tail}")
            };
            format!("The background command {pid} has ended: {}. {tail}", ending(exit))
        }
    };
    notes.iter().map(line).collect()
}

/// What to do about a failure that the program itself does not explain.
pub(super) fn hints(output: &ToolOutput, network: &Network) -> Vec<String> {
    let says = |any: &[&str]| output.is_error && any.iter().any(|words| output.content.contains(words));
    let mut hints = Vec::new();
    if says(&["No space left on device", "ENOSPC"]) {
        hints.push(
            "/tmp and /dev/shm are small and in memory; $TMPDIR and /workspace are on disk. `df -h` shows what is left."
                .to_owned(),
        );
    }
    if says(&["File too large", "File size limit exceeded"]) {
        hints.push("One file may have at most 1 GiB here.".to_owned());
    }
    const UNRESOLVED: &[&str] = &[
        "name resolution",
        "Name or service not known",
        "Could not resolve host",
        "EAI_AGAIN",
        "ENOTFOUND",
        "UnknownHostException",
        "no such host",
        "Name has no usable address",
    ];
    if says(UNRESOLVED) {
        hints.push(match network {
            Network::None => "There is no network here.".to_owned(),
            _ => "Names are looked up by the proxy alone, and this program did not ask it. Use one that honours HTTPS_PROXY \
                  (curl, git over https, pip, npm, python), or give it the proxy http://127.0.0.1:3128. ssh and database \
                  drivers cannot leave."
                .to_owned(),
        });
    }
    hints
}

/// The result with lines in brackets behind it, as many as there is room for.
pub(super) fn with_lines(mut output: ToolOutput, lines: impl IntoIterator<Item = String>) -> ToolOutput {
    let (mut room, mut dropped) = (NOTES_BYTES_MAX, 0);
    for line in lines {
        if line.len() > room {
            dropped += 1;
            continue;
        }
        room -= line.len();
        let gap = if output.content.ends_with('\n') { "" } else { "\n" };
        output.content.push_str(&format!("{gap}[{line}]"));
    }
    if dropped > 0 {
        output.content.push_str(&format!("\n[{dropped} more notes had no room here.]"));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_saw_is_told() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let background = |tail: &str| Note::Background {
            pid: 7,
            exit: RunExit::Code(3),
            log: "/home/agent/.background/1.log".into(),
            tail: tail.into(),
        };
        let told = notes(&[
            Note::Ended(names(&["sleep", "node"])),
            Note::Adrift(names(&["daemon"])),
            background("line\nboom\n"),
            background(" "),
        ]);
        assert!(told[0].contains("ended with it: sleep, node. ") && told[0].contains("background"));
        assert!(told[1].starts_with("Running on until this turn ends: daemon."));
        assert!(
            told[2]
                .ends_with("7 has ended: exit code 3. The end of /home/agent/.background/1.log:\nline\nboom")
        );
        assert!(told[3].ends_with("It printed nothing."));
    }

    #[test]
    fn a_failure_that_says_too_little_gets_a_hint() {
        let failed = |text: &str| outcome(text.to_owned(), RunExit::Code(1), 1);
        for (output, network, expected) in [
            (failed("write: No space left on device"), Network::None, vec!["$TMPDIR"]),
            (failed("curl: (6) Could not resolve host: x"), Network::None, vec!["There is no network"]),
            (failed("java.net.UnknownHostException: x"), Network::Public, vec!["127.0.0.1:3128"]),
            (failed("something else"), Network::Public, vec![]),
            (ToolOutput::ok("No space left on device"), Network::Public, vec![]),
        ] {
            let hints = hints(&output, &network);
            assert_eq!(hints.len(), expected.len(), "{output:?}");
            assert!(hints.iter().zip(expected).all(|(hint, part)| hint.contains(part)), "{hints:?}");
        }
    }

    #[test]
    fn notes_are_bounded() {
        let output = with_lines(ToolOutput::ok("x\n"), ["a".into(), "b".repeat(4000), "c".into()]);
        assert_eq!(output.content, "x\n[a]\n[c]\n[1 more notes had no room here.]");
    }
}

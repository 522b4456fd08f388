//! Goal: a reader who does what README says sees what README says. Method: every block of it is run. Commands go to one
//! shell, in their order, beside a real server; what they print is compared with what stands below them. Every TOML
//! block is read by a second parser and starts a server.
//!
//! In what is printed `…` stands for anything, a line that is only `…` for any number of lines, and numbers differ.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests, not what they call"
)]

mod blocks;
mod compare;
mod configuration;
mod shell;

use std::path::{Path, PathBuf};
use std::process::Command;

use blocks::{Block, Step};
use shell::Reader;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn readme() -> Vec<Block> {
    blocks::read(&std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap())
}

/// Blocks of a kind that nothing here looks at would be promises that nobody keeps.
#[test]
fn every_block_is_of_a_kind_that_is_run() {
    let mut pages = vec![PathBuf::from("README.md"), "CONTRIBUTING.md".into(), "SECURITY.md".into()];
    let docs = std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap();
    pages.extend(docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name())));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|ending| ending == "md")) {
        for block in blocks::read(&std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap()) {
            let is_run = page == Path::new("README.md")
                && ["console", "toml", "text"].contains(&block.language.as_str());
            assert!(
                is_run,
                "{}:{}: a block of {:?} is run by no test",
                page.display(),
                block.line,
                block.language
            );
        }
    }
}

#[test]
fn every_console_block_does_what_it_shows() {
    let mut reader = Reader::new();
    let mut shown_alone = Vec::new();
    for block in readme() {
        match block.language.as_str() {
            "console" => block.steps().iter().for_each(|step| run(&mut reader, block.line, step)),
            "text" => shown_alone.push(block),
            _ => {}
        }
    }
    // The end of the demo, which is the same client with the demo's own topic.
    let [demo] = &shown_alone[..] else { panic!("one block shows the demo's end") };
    let command = format!("palisade run \"Build a deck on {}\" --out demo-output", demo_topic());
    let step = Step { command, printed: format!("…\n{}", demo.text) };
    run(&mut reader, demo.line, &step);
    reader.end();
}

fn run(reader: &mut Reader, line: usize, step: &Step) {
    let printed = match step.command.strip_prefix("cargo xtask ") {
        // To build and test is what runs this.
        Some(task) => {
            let name = task.split_whitespace().next().unwrap();
            assert!(xtask(&[name, "--help"]).contains("Usage: "), "cargo xtask {name} is no command");
            return;
        }
        None if step.command == "palisade serve" => reader.serve(step.printed.lines().count()),
        None => reader.run(&step.command),
    };
    if let Err(why) = compare::matches(&step.printed, &printed) {
        panic!(
            "README.md:{line}: {}\n{why}\nIt printed:\n{printed}\nand the log says:\n{}",
            step.command,
            reader.log()
        );
    }
}

/// What `cargo xtask demo` asks for: the default that its help names.
fn demo_topic() -> String {
    let help = xtask(&["demo", "--help"]);
    help.split("[default: ").nth(1).unwrap().split(']').next().unwrap().trim_matches('"').to_owned()
}

fn xtask(args: &[&str]) -> String {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo.current_dir(ROOT).arg("xtask").args(args).output().unwrap();
    assert!(output.status.success(), "cargo xtask {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

//! The hand: the only program of ours that runs inside a sandbox, and the launcher that builds the sandbox
//! around it. One static binary with four faces, told apart by its arguments.
//!
//! It must never hold anything worth stealing: no key, no path of another tenant, no descriptor but the control
//! socket. It has no async runtime and no thread but the main one.

mod control;
mod etc;
mod files;
mod init;
mod landlock;
mod launch;
mod local;
mod process;
mod seccomp;
mod status;
mod sys;
mod tree;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use palisade_hand_protocol::{FILE_OP_ARG, INIT_ARG, LAUNCH_ARG, STATUS_NAME};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let rest: Vec<_> = args.collect();
    if Path::new(&name).file_name().is_some_and(|name| name == STATUS_NAME) {
        return finish(STATUS_NAME, status::send(&rest));
    }
    match rest.first().and_then(|arg| arg.to_str()) {
        Some(LAUNCH_ARG) => finish("launch", launch::launch().map(|never| match never {})),
        Some(INIT_ARG) => finish("init", init::run()),
        Some(FILE_OP_ARG) => finish("file-op", files::serve_one()),
        _ => finish("palisade-hand", Err(format!("use {LAUNCH_ARG}, {INIT_ARG} or {FILE_OP_ARG}"))),
    }
}

/// Errors are one line for the server's log or the agent's eyes.
fn finish(face: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // With stderr gone nobody is left to tell.
            let _ = writeln!(std::io::stderr(), "{face}: {message}");
            ExitCode::FAILURE
        }
    }
}

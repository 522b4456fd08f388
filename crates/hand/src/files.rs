//! The file tools, each in a process of its own that pid 1 can end: what they read may be huge or hostile.
//!
//! The only fence is the mount namespace, the same that Bash has; nothing here decides what may be seen.

use palisade_hand_protocol::{FILE_OP_BYTES_MAX, FileOp, FileResult};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::control::read_whole;

/// Reads one operation from stdin, carries it out, writes its result to stdout.
pub(crate) fn serve_one() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("close /proc/self: {e}"))?;
    let request = read_whole(std::io::stdin(), FILE_OP_BYTES_MAX).map_err(|e| format!("read the operation: {e}"))?;
    let operation: FileOp = serde_json::from_slice(&request).map_err(|e| format!("parse the operation: {e}"))?;
    let result = carry_out(&operation);
    let text = serde_json::to_vec(&result).map_err(|e| format!("render the result: {e}"))?;
    std::io::Write::write_all(&mut std::io::stdout(), &text).map_err(|e| format!("write the result: {e}"))
}

fn carry_out(_operation: &FileOp) -> FileResult {
    FileResult { content: "not yet".into(), is_error: true, code: None }
}

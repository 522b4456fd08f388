//! The agent context: `.pokee/*.md` for the system prompt of new sessions (contract §6). An agent may have
//! written these files, so links lead no further than `.pokee` itself and the whole has a limit.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

use palisade_beneath::{Kind, Root, Visit};
use palisade_protocol::limits::AGENT_CONTEXT_BYTES_MAX;

use crate::folders::CONTEXT;
use crate::{Workspace, WorkspaceError, temporary};

/// Names looked at in `.pokee`.
const NAMES_SCANNED_MAX: usize = 10_000;
/// Ends a context that did not fit.
const CUT: &str = "\n[The agent context is longer than its limit and was cut here.]\n";

impl Workspace {
    /// The Markdown files of `.pokee` in the order of their names, each under a `## <filename>` header, together
    /// at most `AGENT_CONTEXT_BYTES_MAX` with the marker that says so. Empty when there are none.
    pub fn agent_context(&self) -> Result<String, WorkspaceError> {
        let failed = |source| WorkspaceError::Io { action: "reading", path: CONTEXT.to_owned(), source };
        let root = match self.root.narrow(Path::new(CONTEXT)) {
            // Removed, or a link by now: the next session finds it made again, and empty.
            Err(_) => return Ok(String::new()),
            Ok(root) => root,
        };
        let mut context = String::new();
        for name in markdown_names(&root).map_err(failed)? {
            // An unreadable file must not keep every new session from starting.
            let Some(text) = read_text(&root, Path::new(&name)) else {
                tracing::warn!(file = %name.display(), "a file of the agent context cannot be read");
                continue;
            };
            let header: String = name.to_string_lossy().chars().filter(|c| !c.is_control()).collect();
            context.push_str(&format!("## {header}\n\n{}\n\n", text.trim_end()));
            if context.len() > AGENT_CONTEXT_BYTES_MAX {
                cut(&mut context);
                break;
            }
        }
        Ok(context)
    }
}

fn markdown_names(root: &Root) -> std::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    let mut scanned = 0;
    root.directory(Path::new(""))?.read(|name, kind| {
        scanned += 1;
        let is_markdown = Path::new(name).extension().is_some_and(|extension| extension == "md");
        if is_markdown && matches!(kind, Kind::File | Kind::Link) && !temporary::is_temporary(name) {
            names.push(name.to_owned());
        }
        if scanned < NAMES_SCANNED_MAX { Visit::More } else { Visit::Stop }
    })?;
    names.sort_unstable();
    Ok(names)
}

/// One byte more than may be used, so that the caller sees that there is more.
fn read_text(root: &Root, name: &Path) -> Option<String> {
    let file = root.look_up(name).and_then(|node| node.open_file()).ok()?;
    let mut bytes = Vec::new();
    file.take(AGENT_CONTEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn cut(context: &mut String) {
    let end =
        (0..=AGENT_CONTEXT_BYTES_MAX - CUT.len()).rev().find(|at| context.is_char_boundary(*at)).unwrap_or(0);
    context.truncate(end);
    context.push_str(CUT);
}

//! `palisade audit`: the egress log, read where it lies. It needs no running server and changes nothing; a server may be writing meanwhile.

mod line;
mod tail;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use palisade_egress::anchor_of;

/// What left, and what was not let out: the log of the egress proxy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade audit tail --data-dir /var/lib/palisade
  palisade audit tail -f --refused                          what is being refused, as it happens
  palisade audit verify --data-dir /var/lib/palisade        exit 0: whole; 1: not, and where
  palisade audit verify /mnt/copies/acme                    a copy that was shipped
  palisade audit verify /srv/log --anchor /mnt/anchors      a log in another place than its anchor

A log is held against its anchor: a small file in another place, DIR/audit-anchor, that says how far the log goes.
Without it a log that was cut at its end looks like a whole one, and verify says so.

The usage audit, of turns and what they cost, is `palisade admin audit`.")]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check that no record was changed, taken out or put in, and that none is missing at either end
    Verify(VerifyArgs),
    /// Show the latest records
    Tail(tail::TailArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// The folder of the log's anchor [default: `audit-anchor` beside the log]
    #[arg(long, value_name = "DIR")]
    anchor: Option<PathBuf>,
    /// The log begins with this record: you took those before it away yourself
    #[arg(long, value_name = "SEQ")]
    first: Option<u64>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// Where the log is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The log's folder, or a copy's
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The server's data directory, in which the log is `audit`
    #[arg(long, default_value = "palisade-data", value_name = "DIR", conflicts_with = "folder")]
    data_dir: PathBuf,
}

impl Place {
    /// The log, or the log of each server that shares the place.
    fn logs(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.clone().unwrap_or_else(|| self.data_dir.join("audit"));
        let told = || {
            format!(
                "there is no audit log in {}; name its folder, or the server's --data-dir",
                folder.display()
            )
        };
        if has_log(&folder) {
            return Ok(vec![folder]);
        }
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&folder)
            .with_context(told)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| has_log(path))
            .collect();
        logs.sort();
        if logs.is_empty() {
            bail!(told());
        }
        Ok(logs)
    }
}

fn has_log(folder: &Path) -> bool {
    let is_part = |name: &str| name == "current.jsonl" || name.starts_with("segment-");
    std::fs::read_dir(folder)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_part)))
}

/// Carries the command out.
pub(crate) fn audit(args: AuditArgs) -> Result<()> {
    match args.action {
        Action::Verify(args) => verify(&args),
        Action::Tail(args) => tail::tail(&args),
    }
}

impl VerifyArgs {
    /// Where this log's anchor is looked for: beside the log, or beside the folder of all logs.
    fn anchors_of(&self, log: &Path) -> Option<PathBuf> {
        let beside = |folder: &Path| Some(folder.parent()?.join("audit-anchor"));
        let log = std::path::absolute(log).ok()?;
        let found = || {
            [beside(&log), beside(log.parent()?)]
                .into_iter()
                .flatten()
                .find(|it| anchor_of(&log, it).exists())
        };
        self.anchor.clone().or_else(found)
    }
}

/// Where several logs share a place, none of those that have an anchor is missing.
fn no_log_is_gone(args: &VerifyArgs, logs: &[PathBuf]) -> Result<()> {
    let anchors = args.anchor.clone().unwrap_or_else(|| args.place.data_dir.join("audit-anchor"));
    if args.place.folder.is_some() {
        return Ok(());
    }
    for entry in std::fs::read_dir(&anchors).into_iter().flatten().flatten() {
        let name = entry.path().with_extension("");
        if !logs.iter().any(|log| log.file_name() == name.file_name()) {
            let name = name.file_name().unwrap_or_default().display().to_string();
            bail!("the audit log {name} is gone: its anchor is in {}", anchors.display());
        }
    }
    Ok(())
}

fn verify(args: &VerifyArgs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let logs = args.place.logs()?;
    no_log_is_gone(args, &logs)?;
    for log in logs {
        let anchor = args.anchors_of(&log).map(|anchors| anchor_of(&log, &anchors)).unwrap_or_default();
        let verified = palisade_egress::verify_anchored(&log, &anchor, args.first)
            .with_context(|| format!("the audit log in {} is not what was written", log.display()))?;
        let told = match args.json {
            true => serde_json::json!({
                "folder": log, "first_seq": verified.first_seq, "last_seq": verified.last_seq,
                "last_hash": verified.last_hash, "segments": verified.segments, "torn": verified.torn,
                "anchored": verified.anchored,
            })
            .to_string(),
            false => format!(
                "{}: whole, records {} to {} in {} segments and the current file{}\n{}\nlast hash {}",
                log.display(),
                verified.first_seq,
                verified.last_seq,
                verified.segments,
                if verified.torn {
                    "; a last line is being written, or was when its server was killed"
                } else {
                    ""
                },
                if verified.anchored {
                    "it ends where its anchor says, or behind"
                } else {
                    "no anchor was found, so a cut at its end would not show: name its folder with --anchor"
                },
                verified.last_hash,
            ),
        };
        writeln!(out, "{told}")?;
    }
    Ok(())
}

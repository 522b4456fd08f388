//! `palisade audit`: the egress log, read where it lies. It needs no running server and changes nothing; a server may be writing meanwhile.

mod line;
mod tail;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What left, and what was not let out: the log of the egress proxy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade audit tail --data-dir /var/lib/palisade
  palisade audit tail -f --refused                          what is being refused, as it happens
  palisade audit verify --data-dir /var/lib/palisade        exit 0: whole; 1: not, and where
  palisade audit verify /mnt/copies/acme                    a copy that was shipped

The usage audit, of turns and what they cost, is `palisade admin audit`.")]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check that no record was changed, taken out or put in: numbers and hashes, from the first to the last
    Verify(VerifyArgs),
    /// Show the latest records
    Tail(tail::TailArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    place: Place,
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

fn verify(args: &VerifyArgs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for log in args.place.logs()? {
        let verified = palisade_egress::verify(&log)
            .with_context(|| format!("the audit log in {} is not what was written", log.display()))?;
        let told = match args.json {
            true => serde_json::json!({
                "folder": log, "first_seq": verified.first_seq, "last_seq": verified.last_seq,
                "last_hash": verified.last_hash, "segments": verified.segments, "torn": verified.torn,
            })
            .to_string(),
            false => format!(
                "{}: whole, records {} to {} in {} segments and the current file{}\nlast hash {}",
                log.display(),
                verified.first_seq,
                verified.last_seq,
                verified.segments,
                if verified.torn {
                    "; a last line is being written, or was when its server was killed"
                } else {
                    ""
                },
                verified.last_hash,
            ),
        };
        writeln!(out, "{told}")?;
    }
    Ok(())
}

//! The latest records of a log, and those that come. Bounded: what is shown at first is read from the end of the current file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Place, line};
use crate::client::json_line;

/// What is read of a file's end for the first lines, in bytes.
const END_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How often a followed file is looked at.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    place: Place,
    /// So many of the latest
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    lines: usize,
    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    /// Only this tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The records as they are in the file
    #[arg(long)]
    json: bool,
}

pub(super) fn tail(args: &TailArgs) -> Result<()> {
    let mut logs: Vec<Followed> =
        args.place.logs()?.iter().map(|folder| Followed::open(folder)).collect::<Result<_>>()?;
    let mut latest = Vec::new();
    for log in &mut logs {
        latest.extend(log.new_lines()?);
    }
    latest.retain(|text| args.wants(text));
    // Of several logs, in the order of their times, which is how every record begins.
    latest.sort();
    show(args, &latest[latest.len().saturating_sub(args.lines)..])?;
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK);
        for log in &mut logs {
            let new: Vec<String> = log.new_lines()?.into_iter().filter(|text| args.wants(text)).collect();
            show(args, &new)?;
        }
    }
}

fn show(args: &TailArgs, lines: &[String]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for text in lines {
        match (args.json, serde_json::from_str::<Value>(text)) {
            (false, Ok(record)) => writeln!(out, "{}", line::line(&record))?,
            _ => out.write_all(json_line(text).as_bytes())?,
        }
    }
    out.flush()?;
    Ok(())
}

impl TailArgs {
    fn wants(&self, text: &str) -> bool {
        let Ok(record) = serde_json::from_str::<Value>(text) else { return true };
        (!self.refused || record["decision"] == "refuse")
            && self.tenant.as_deref().is_none_or(|tenant| record["tenant"] == tenant)
    }
}

/// The current file of a log, which is another file after each rotation.
struct Followed {
    path: PathBuf,
    file: Option<BufReader<File>>,
    inode: u64,
    /// The beginning of a line whose end has not come.
    unfinished: String,
}

impl Followed {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("current.jsonl");
        let mut followed = Self { path, file: None, inode: 0, unfinished: String::new() };
        followed.open_again()?;
        if let Some(file) = &mut followed.file {
            let length = file.get_ref().metadata()?.len();
            if length > END_BYTES_MAX {
                file.seek(SeekFrom::Start(length - END_BYTES_MAX))?;
                file.read_line(&mut String::new())?;
            }
        }
        Ok(followed)
    }

    fn open_again(&mut self) -> Result<()> {
        match File::open(&self.path) {
            Ok(file) => {
                self.inode = file.metadata()?.ino();
                self.file = Some(BufReader::new(file));
                Ok(())
            }
            // Between two files, or a copy, which has none.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("the audit log {} cannot be read", self.path.display()))
            }
        }
    }

    /// Whole lines that have come since the last look.
    fn new_lines(&mut self) -> Result<Vec<String>> {
        let mut lines = self.rest()?;
        let is_another = std::fs::metadata(&self.path).is_ok_and(|it| it.ino() != self.inode);
        if is_another {
            // What was written to the old one between the two looks.
            lines.extend(self.rest()?);
            self.unfinished.clear();
            self.open_again()?;
            lines.extend(self.rest()?);
        }
        Ok(lines)
    }

    fn rest(&mut self) -> Result<Vec<String>> {
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.unfinished.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.unfinished.rfind('\n') else { return Ok(Vec::new()) };
        let whole: String = self.unfinished.drain(..=end).collect();
        Ok(whole.lines().map(str::to_owned).collect())
    }
}

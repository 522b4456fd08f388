//! `palisade admin audit`: the records of a time, written as they come.

use anyhow::{Context as _, Result};

use super::socket::Socket;
use super::{time, write_out};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Write the records to standard output, oldest first.
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// One JSON object a line, or a table for a spreadsheet.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// From then on: a date (2026-05-01), a time (2026-05-01T12:00:00Z), Unix seconds, or how long ago (36h, 7d).
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    since: Option<f64>,
    /// Until then, which is not in it any more; written as --since.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    until: Option<f64>,
    /// Of this tenant only.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

pub(super) async fn audit(socket: &Socket, Audit::Export(export): Audit) -> Result<()> {
    let format = match export.format {
        Format::Jsonl => "jsonl",
        Format::Csv => "csv",
    };
    let mut query = vec![("format", format.to_owned())];
    query.extend(export.since.map(|at| ("since", at.to_string())));
    query.extend(export.until.map(|at| ("until", at.to_string())));
    query.extend(export.tenant.map(|tenant| ("tenant", tenant)));
    let mut answer = socket.send(socket.get_with("/audit", &query)).await?;
    while let Some(part) = answer.chunk().await.context("the export broke off, so it is not whole")? {
        write_out(&part)?;
    }
    Ok(())
}

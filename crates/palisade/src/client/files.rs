//! `palisade files`: the workspace as a session may see it. Bodies are streamed in both directions.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Response};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::api::{Api, FileEntry, SILENCE_LIMIT, understood};
use super::connection::Connection;
use super::download::{self, Target};
use super::error::ClientError;
use super::printer::write_out;
use super::remote_path::RemotePath;
use super::sessions::now_s;
use super::table::Table;
use super::text;

const EXAMPLES: &str = "\
Examples:
  palisade files sess_a86118c06688 ls output
  palisade files sess_a86118c06688 get output/deck.pptx
  palisade files sess_a86118c06688 get output --zip -o everything.zip
  palisade files sess_a86118c06688 put figures.csv input/
  palisade files sess_a86118c06688 rm drafts --recursive

Paths are relative to the workspace, which all of a tenant's sessions share.";

/// List, fetch, upload and delete files of the workspace.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Files {
    /// The session through whose scope to look.
    session: String,
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List a folder.
    Ls {
        /// The folder; the workspace itself when absent.
        #[arg(default_value = "")]
        path: OsString,
        /// The server's JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a file; one of the same name here is kept.
    Get {
        /// The file.
        path: OsString,
        /// Save as this file, replacing it, or into this folder; - is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Fetch a whole folder as one zip file.
        #[arg(long)]
        zip: bool,
    },
    /// Upload a file.
    Put {
        /// The local file; - is stdin.
        file: PathBuf,
        /// Where to; its own name in the workspace when absent. A path that ends in / is a folder.
        path: Option<OsString>,
    },
    /// Delete a file or folder.
    Rm {
        /// The file or folder.
        path: OsString,
        /// A folder with everything in it.
        #[arg(long)]
        recursive: bool,
    },
}

pub(super) async fn files(args: Files) -> Result<ExitCode, ClientError> {
    let (api, session) = (args.connection.open()?, args.session.as_str());
    match args.action {
        Action::Ls { path, json } => list(&api, session, &path, json).await,
        Action::Get { path, output, zip } => get(&api, session, &path, output, zip).await,
        Action::Put { file, path } => put(&api, session, &file, path.as_deref()).await,
        Action::Rm { path, recursive } => {
            let path = RemotePath::parse(&path)?;
            api.remove(session, &path, recursive).await?;
            write_out(&format!("deleted {path}\n"))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn list(api: &Api, session: &str, path: &OsStr, json: bool) -> Result<(), ClientError> {
    let answer = api.listing(session, &RemotePath::parse(path)?).await?;
    if json {
        return write_out(&text::json_line(&answer.to_string()));
    }
    let entries: Vec<FileEntry> = understood("listing files", answer)?;
    if entries.is_empty() {
        return write_out("nothing here\n");
    }
    let now_s = now_s();
    let mut table = Table::new(&["SIZE", "CHANGED", "NAME"]);
    for entry in entries {
        let is_folder = entry.kind == "directory";
        table.row(vec![
            if is_folder { "-".into() } else { text::size(entry.size) },
            format!("{} ago", text::age(now_s - entry.modified)),
            format!("{}{}", entry.name, if is_folder { "/" } else { "" }),
        ]);
    }
    write_out(&table.render())
}

async fn get(
    api: &Api,
    session: &str,
    path: &OsStr,
    output: Option<PathBuf>,
    zip: bool,
) -> Result<(), ClientError> {
    let path = RemotePath::parse(path)?;
    let to_stdout = output.as_deref() == Some(Path::new("-"));
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(ClientError::RawToTerminal);
    }
    let response = api.download(session, &path, zip).await?;
    if !zip && is_listing(api, session, &path, &response).await {
        return Err(ClientError::IsFolder { path: path.to_string() });
    }
    if to_stdout {
        return copy_to_stdout(response).await;
    }
    let remote_name = path.file_name();
    let name = match (zip, remote_name.is_empty()) {
        (true, true) => "workspace.zip".to_owned(),
        (true, false) => format!("{remote_name}.zip"),
        (false, _) => remote_name,
    };
    // A hidden file that was asked for by name is wanted; it only may not replace one here.
    let local = download::local_name(&name).or_else(|| download::local_name(name.trim_start_matches('.')));
    let local = local.unwrap_or_else(|| "download".to_owned());
    let mut is_renamed = local != name;
    let target = match output {
        Some(file) if !file.is_dir() => {
            is_renamed = false;
            Target::Exactly(file)
        }
        folder => Target::Beside { folder: folder.unwrap_or_else(|| ".".into()), name: local },
    };
    let (saved, size) = download::save(response, &target).await?;
    let saved = text::one_line(&saved.display().to_string(), 400);
    let made_as = if is_renamed { format!(", in the workspace {path}") } else { String::new() };
    write_out(&format!("→ {saved} ({}{made_as})\n", text::size(size)))
}

/// Whether the answer to a download is a folder's listing; a JSON file looks the same at first sight.
async fn is_listing(api: &Api, session: &str, path: &RemotePath, response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.starts_with("application/json")
        && api.listing(session, path).await.is_ok_and(|answer| answer.is_array())
}

async fn copy_to_stdout(mut response: Response) -> Result<(), ClientError> {
    let what = "fetching the file";
    loop {
        let chunk = tokio::time::timeout(SILENCE_LIMIT, response.chunk()).await;
        let chunk = chunk.map_err(|_| ClientError::Silent { what: what.into(), limit: SILENCE_LIMIT })?;
        let Some(bytes) = chunk.map_err(|source| ClientError::Broken { what: what.into(), source })? else {
            return write_out("");
        };
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
        written.map_err(|source| ClientError::Process { action: "write to stdout", source })?;
    }
}

async fn put(api: &Api, session: &str, file: &Path, path: Option<&OsStr>) -> Result<(), ClientError> {
    let written = if file == Path::new("-") {
        let path = path.filter(|path| !path.is_empty()).ok_or(ClientError::Message {
            problem: "what comes from stdin needs a path in the workspace".into(),
        })?;
        put_file(api, session, Path::new("/dev/stdin"), &RemotePath::parse(path)?).await?
    } else {
        put_file(api, session, file, &destination(file, path)?).await?
    };
    let shown = written.get("path").and_then(Value::as_str).unwrap_or("");
    let size = written.get("size").and_then(Value::as_u64).unwrap_or(0);
    write_out(&format!("→ {} ({})\n", text::one_line(shown, 400), text::size(size)))
}

/// Where a local file goes: to the path given, or into it where it ends in a slash, or under its own name.
pub(super) fn destination(file: &Path, path: Option<&OsStr>) -> Result<RemotePath, ClientError> {
    let name = file.file_name().unwrap_or_default();
    match path {
        Some(path) if !path.is_empty() && !path.as_bytes().ends_with(b"/") => RemotePath::parse(path),
        Some(folder) => RemotePath::parse(&OsString::from_vec([folder.as_bytes(), name.as_bytes()].concat())),
        None => RemotePath::parse(name),
    }
}

/// Streams a local file into the workspace, exactly as many bytes as it had at the start.
pub(super) async fn put_file(
    api: &Api,
    session: &str,
    file: &Path,
    destination: &RemotePath,
) -> Result<Value, ClientError> {
    let failed = |action| move |source| ClientError::File { action, path: file.to_owned(), source };
    let opened = tokio::fs::File::open(file).await.map_err(failed("open"))?;
    let metadata = opened.metadata().await.map_err(failed("read"))?;
    if metadata.is_dir() {
        return Err(failed("upload")(std::io::ErrorKind::IsADirectory.into()));
    }
    // A pipe's length is not known; a file's is, and the server then refuses it before it is sent.
    let length_bytes = metadata.is_file().then_some(metadata.len());
    let body = match length_bytes {
        Some(length_bytes) => Body::wrap_stream(ReaderStream::new(opened.take(length_bytes))),
        None => Body::wrap_stream(ReaderStream::new(opened)),
    };
    api.upload(session, destination, body, length_bytes).await
}

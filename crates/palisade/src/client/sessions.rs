//! `palisade sessions`: what there is, one in full, and cleaning up.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::api::{Api, SessionRecord, understood};
use super::connection::Connection;
use super::error::ClientError;
use super::printer::write_out;
use super::table::Table;
use super::text;

const EXAMPLES: &str = "\
Examples:
  palisade sessions
  palisade sessions show sess_a86118c06688
  palisade sessions delete sess_a86118c06688
  palisade sessions delete --idle --older-than 1h30m";

/// List, show and delete sessions.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    action: Option<Action>,
    /// The server's JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the sessions (the default).
    List,
    /// Show a session's record.
    Show {
        /// The session.
        id: String,
    },
    /// Delete a session, or idle ones. A turn that runs in it is cancelled.
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// The session.
    #[arg(required_unless_present = "idle", conflicts_with = "idle")]
    id: Option<String>,
    /// Every session that has no running turn.
    #[arg(long)]
    idle: bool,
    /// Only those idle for at least this long, such as 90s, 2h or 1h30m.
    #[arg(long, value_name = "TIME", requires = "idle")]
    older_than: Option<String>,
}

pub(super) async fn sessions(args: Sessions) -> Result<ExitCode, ClientError> {
    let api = args.connection.open()?;
    match args.action.unwrap_or(Action::List) {
        Action::List => list(&api, args.json).await,
        Action::Show { id } => show(&api, &id, args.json).await,
        Action::Delete(Delete { id: Some(id), .. }) => delete(&api, &id, args.json).await,
        Action::Delete(Delete { older_than, .. }) => {
            delete_idle(&api, older_than.as_deref(), args.json).await
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn list(api: &Api, json: bool) -> Result<(), ClientError> {
    let answer = api.sessions().await?;
    if json {
        return write_out(&text::json_line(&answer.to_string()));
    }
    let records: Vec<SessionRecord> = understood("listing the sessions", answer)?;
    if records.is_empty() {
        return write_out("no sessions\n");
    }
    let now_s = now_s();
    let mut table = Table::new(&["SESSION", "STATE", "AGE", "ACTIVE", "ENDS IN", "KEPT", "MODEL"]);
    for record in &records {
        table.row(row(record, now_s));
    }
    write_out(&table.render())
}

fn row(record: &SessionRecord, now_s: f64) -> Vec<String> {
    let expires_at = record.expires_at.unwrap_or(record.created_at + record.ttl as f64);
    vec![
        record.id.clone(),
        if record.busy { "busy" } else { "idle" }.into(),
        text::age(now_s - record.created_at),
        format!("{} ago", text::age(now_s - record.last_activity)),
        text::age(expires_at - now_s),
        if record.persistent { "persistent" } else { "while used" }.into(),
        record.model.clone().unwrap_or_default(),
    ]
}

async fn show(api: &Api, id: &str, json: bool) -> Result<(), ClientError> {
    let answer = api.session(id).await?;
    if json {
        return write_out(&text::json_line(&answer.to_string()));
    }
    let record: SessionRecord = understood("reading the session", answer)?;
    let now_s = now_s();
    let cells = row(&record, now_s);
    let paths = |kind: &str| {
        let paths = record.file_access.get(kind).and_then(Value::as_array).cloned().unwrap_or_default();
        let names: Vec<&str> = paths.iter().filter_map(Value::as_str).collect();
        if names == [""] { "everything".to_owned() } else { names.join(", ") }
    };
    let mut lines = vec![
        ("session", record.id.clone()),
        ("state", cells[1].clone()),
        ("created", format!("{} ago", cells[2])),
        ("active", cells[3].clone()),
        ("ends in", cells[4].clone()),
        ("kept", cells[5].clone()),
        ("model", cells[6].clone()),
        ("may read", paths("read")),
        ("may write", paths("write")),
        ("last turn", record.last_response_id.clone().unwrap_or_else(|| "none".into())),
    ];
    if let Some(metadata) = record.metadata.as_object() {
        lines.extend(metadata.iter().map(|(key, value)| ("metadata", format!("{key} = {value}"))));
    }
    let shown = lines.iter().map(|(name, value)| format!("{name:<10} {}\n", text::one_line(value, 400)));
    write_out(&shown.collect::<String>())
}

async fn delete(api: &Api, id: &str, json: bool) -> Result<(), ClientError> {
    api.delete_session(id).await?;
    write_out(&if json {
        "{\"deleted\":1}\n".to_owned()
    } else {
        format!("deleted {}\n", text::one_line(id, 80))
    })
}

async fn delete_idle(api: &Api, older_than: Option<&str>, json: bool) -> Result<(), ClientError> {
    let answer = api.delete_idle(older_than).await?;
    if json {
        return write_out(&text::json_line(&answer.to_string()));
    }
    let deleted = answer.get("deleted").and_then(Value::as_u64).unwrap_or(0);
    write_out(&format!(
        "deleted {} {}\n",
        text::count(deleted),
        if deleted == 1 { "session" } else { "sessions" }
    ))
}

/// The wire's clock.
pub(super) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

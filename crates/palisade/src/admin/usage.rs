//! `palisade admin usage`: what every token has used of what it may.

use anyhow::Result;
use serde::Deserialize;

use super::socket::Socket;
use super::write_out;
use crate::client::table::Table;

#[derive(Deserialize)]
struct Caller {
    tenant: String,
    caller_id: String,
    bucket: String,
    windows: Vec<Window>,
}

#[derive(Deserialize)]
struct Window {
    name: String,
    turns: u64,
    tokens: u64,
    max_turns: Option<u64>,
    max_tokens: Option<u64>,
}

pub(super) async fn usage(socket: &Socket, json: bool) -> Result<()> {
    let answer = socket.json(socket.get("/usage")).await?;
    if json {
        return write_out(format!("{answer}\n").as_bytes());
    }
    let callers: Vec<Caller> = serde_json::from_value(answer)?;
    if callers.is_empty() {
        return write_out(b"nothing was used in the last day\n");
    }
    let mut table = Table::new(&["TENANT", "TOKEN", "BUCKET", "WINDOW", "TURNS", "TOKENS"]);
    let of = |used: u64, max: Option<u64>| match max {
        Some(max) => format!("{used} of {max}"),
        None => used.to_string(),
    };
    for caller in &callers {
        for window in &caller.windows {
            table.row(vec![
                caller.tenant.clone(),
                caller.caller_id.clone(),
                caller.bucket.clone(),
                window.name.clone(),
                of(window.turns, window.max_turns),
                of(window.tokens, window.max_tokens),
            ]);
        }
    }
    write_out(table.render().as_bytes())
}

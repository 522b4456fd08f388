//! `palisade admin credits`: ledgers, what was posted to them, and postings by hand.

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::socket::{Socket, encoded};
use super::{shown, time};
use crate::client::table::Table;
use palisade_protocol::MicroCredits;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Credits {
    /// Every ledger, or one with its latest entries.
    Show {
        /// Which ledger; all of them when absent.
        #[arg(long, value_name = "NAME")]
        ledger: Option<String>,
        /// How many of its entries, newest first.
        #[arg(long, default_value_t = 20, value_name = "COUNT")]
        entries: usize,
    },
    /// Add credits that were bought or granted.
    Add(Post),
    /// Put something right, either way; a negative amount takes credits away.
    Correct(Post),
    /// Check that every posting sums to zero and every balance is the sum of its entries.
    Check,
}

#[derive(Debug, clap::Args)]
pub(super) struct Post {
    /// To which ledger.
    #[arg(long, value_name = "NAME")]
    ledger: String,
    /// How many credits: digits, at most six behind the point.
    #[arg(long, value_name = "CREDITS", allow_hyphen_values = true)]
    amount: String,
    /// Why, for whoever reads the ledger later.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// A name of your own for this posting: the same one again changes nothing, so a retry is safe.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Deserialize)]
struct Ledger {
    ledger: String,
    mode: Option<String>,
    balance_micro: MicroCredits,
    held_micro: MicroCredits,
    tenants: Vec<String>,
    #[serde(default)]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    posting: String,
    kind: String,
    amount_micro: MicroCredits,
    reason: String,
    at: f64,
}

pub(super) async fn credits(socket: &Socket, credits: Credits, json: bool) -> Result<()> {
    match credits {
        Credits::Show { ledger: None, .. } => {
            let answer = socket.json(socket.get("/ledgers")).await?;
            shown(json, &answer, |answer| Ok(ledgers(&serde_json::from_value::<Vec<Ledger>>(answer)?)))
        }
        Credits::Show { ledger: Some(name), entries } => {
            let path = format!("/ledgers/{}", encoded(&name));
            let request = socket.get_with(&path, &[("entries", entries.to_string())]);
            let answer = socket.json(request).await?;
            shown(json, &answer, |answer| {
                let ledger: Ledger = serde_json::from_value(answer)?;
                Ok(format!("{}\n{}", ledgers(std::slice::from_ref(&ledger)), entries_of(&ledger)))
            })
        }
        Credits::Add(post) => posted(socket, "top_up", post, json).await,
        Credits::Correct(post) => posted(socket, "correction", post, json).await,
        Credits::Check => check(socket, json).await,
    }
}

fn ledgers(ledgers: &[Ledger]) -> String {
    if ledgers.is_empty() {
        return "no ledgers; `ledger` or `credits` of a [[tenant]] makes one\n".to_owned();
    }
    let mut table = Table::new(&["LEDGER", "MODE", "BALANCE", "SET ASIDE", "TENANTS"]);
    for ledger in ledgers {
        table.row(vec![
            ledger.ledger.clone(),
            ledger.mode.clone().unwrap_or_else(|| "not in use".to_owned()),
            ledger.balance_micro.to_string(),
            ledger.held_micro.to_string(),
            ledger.tenants.join(", "),
        ]);
    }
    table.render()
}

fn entries_of(ledger: &Ledger) -> String {
    if ledger.entries.is_empty() {
        return "no entries\n".to_owned();
    }
    let mut table = Table::new(&["WHEN", "KIND", "CREDITS", "POSTING", "REASON"]);
    for entry in &ledger.entries {
        table.row(vec![
            time::shown(entry.at),
            entry.kind.clone(),
            entry.amount_micro.to_string(),
            entry.posting.clone(),
            entry.reason.clone(),
        ]);
    }
    table.render()
}

async fn posted(socket: &Socket, kind: &str, post: Post, json: bool) -> Result<()> {
    // Read here too, so that a slip is named without a server.
    MicroCredits::parse(&post.amount)?;
    // Named here, so that whoever does not hear the answer can repeat it and has it posted once.
    let (key, is_ours) = match post.key {
        Some(key) => (key, false),
        None => (palisade_vault::random_hex::<12>()?, true),
    };
    let body = json!({"kind": kind, "amount": post.amount, "reason": post.reason, "key": key});
    let request = socket.post(&format!("/ledgers/{}/postings", encoded(&post.ledger))).json(&body);
    let answer = match socket.json(request).await {
        Err(error) if is_ours => {
            return Err(error
                .context(format!("not confirmed; repeat it with --key {key}, which posts it once at most")));
        }
        answer => answer?,
    };
    shown(json, &answer, |answer| {
        let balance: MicroCredits = serde_json::from_value(answer["balance_micro"].clone())?;
        let key = answer["key"].as_str().unwrap_or_default();
        Ok(match answer["posted"].as_bool() {
            Some(true) => format!("posted as {key}; {} has {balance} credits now\n", post.ledger),
            _ => format!("{key} was posted before; {} has {balance} credits\n", post.ledger),
        })
    })
}

async fn check(socket: &Socket, json: bool) -> Result<()> {
    let answer = socket.json(socket.get("/ledger-faults")).await?;
    let faults: Vec<String> = serde_json::from_value(answer["faults"].clone())?;
    shown(json, &answer, |_| {
        Ok(match faults.is_empty() {
            true => "every posting sums to zero and every balance is the sum of its entries\n".to_owned(),
            false => faults.iter().map(|fault| format!("{fault}\n")).collect(),
        })
    })?;
    if !faults.is_empty() {
        bail!("the ledgers do not add up");
    }
    Ok(())
}

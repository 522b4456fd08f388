//! The ledgers: append-only, double entry, whole micro-credits. Every posting's rows sum to zero, and what an account
//! holds is kept in the transaction that changes it, so that a balance is one row. Nothing here decides a price.

use palisade_protocol::{LedgerName, MicroCredits};

use crate::engine::{Connection, query, query_built};
use crate::read::{corrupt, reading};
use crate::write::{Write, writing};
use crate::{Store, StoreError};

/// What a customer can spend; below zero is owed.
pub(crate) const CUSTOMER: &str = "customer";
/// What was spent on model calls.
pub(crate) const REVENUE: &str = "revenue";

/// What a posting that no turn made is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostingKind {
    /// What the ledger began with; once.
    Opening,
    /// Credits were added.
    TopUp,
    /// Something was put right, either way.
    Correction,
}

impl PostingKind {
    /// As it stands in the table; the account on the other side has the same name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::TopUp => "top_up",
            Self::Correction => "correction",
        }
    }
}

/// Credits that come or go by an operator's hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// To whom.
    pub ledger: LedgerName,
    /// Why.
    pub kind: PostingKind,
    /// Unique within the ledger: the same posting again changes nothing. Not used for an opening.
    pub key: String,
    /// Below zero takes away.
    pub amount: MicroCredits,
    /// For people.
    pub reason: String,
}

/// What a ledger holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerState {
    /// Which.
    pub ledger: LedgerName,
    /// What was not spent.
    pub balance: MicroCredits,
    /// What running turns have set aside of it (hard mode).
    pub held: MicroCredits,
}

/// What a posting changed for the customer.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// The posting's name, which says what it was for.
    pub posting: String,
    /// `opening`, `top_up`, `correction` or `usage`.
    pub kind: String,
    /// Below zero was taken away.
    pub amount: MicroCredits,
    /// For people; empty for usage.
    pub reason: String,
    /// Unix seconds.
    pub at: f64,
}

impl Store {
    /// Opens an account with what it begins with, once: a later call with anything else changes nothing.
    pub async fn open_ledger(
        &self,
        ledger: &LedgerName,
        opening: Option<MicroCredits>,
        at: f64,
    ) -> Result<(), StoreError> {
        let (ledger, kind, key) = (ledger.clone(), PostingKind::Opening, String::new());
        let (amount, reason) = (opening.unwrap_or_default(), "the configuration's balance".to_owned());
        let posting = Posting { ledger, kind, key, amount, reason };
        self.writer.write(Write::OpenLedger { posting, is_stated: opening.is_some(), at }).await.map(drop)
    }

    /// Posts; whether it was new. The same key with another amount or kind is [`StoreError::PostingDiffers`].
    pub async fn post(&self, posting: Posting, at: f64) -> Result<bool, StoreError> {
        Ok(self.writer.write(Write::Post { posting, at }).await? > 0)
    }

    /// What is left in a ledger; nothing in one that was never opened.
    pub async fn balance(&self, ledger: &LedgerName) -> Result<MicroCredits, StoreError> {
        let balance = query("SELECT balance FROM ledger_account WHERE ledger = $1 AND account = $2");
        let balance = balance.bind(ledger.as_str()).bind(CUSTOMER).optional::<(i64,)>(&self.readers).await;
        Ok(balance
            .map_err(reading("a balance"))?
            .map_or(MicroCredits::ZERO, |(balance,)| MicroCredits(balance)))
    }

    /// Every ledger, by name.
    pub async fn ledgers(&self) -> Result<Vec<LedgerState>, StoreError> {
        let rows = query(
            "SELECT ledger, balance,
                    CAST(COALESCE((SELECT SUM(amount) FROM hold WHERE hold.ledger = ledger_account.ledger), 0) AS BIGINT)
             FROM ledger_account WHERE account = $1 ORDER BY ledger",
        );
        let rows = rows.bind(CUSTOMER).all::<(String, i64, i64)>(&self.readers).await;
        let state = |(ledger, balance, held): (String, i64, i64)| {
            let ledger = LedgerName::parse(&ledger).map_err(corrupt("a ledger's name"))?;
            Ok(LedgerState { ledger, balance: MicroCredits(balance), held: MicroCredits(held) })
        };
        rows.map_err(reading("ledgers"))?.into_iter().map(state).collect()
    }

    /// The customer's side of a ledger's postings, newest first.
    pub async fn ledger_entries(
        &self,
        ledger: &LedgerName,
        limit: i64,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        let rows = query(
            "SELECT posting, kind, amount, reason, at FROM ledger_entry
             WHERE ledger = $1 AND account = $2 ORDER BY at DESC, posting DESC LIMIT $3",
        );
        let rows = rows.bind(ledger.as_str()).bind(CUSTOMER).bind(limit);
        let rows = rows.all::<(String, String, i64, String, f64)>(&self.readers).await;
        let entry = |(posting, kind, amount, reason, at)| LedgerEntry {
            posting,
            kind,
            amount: MicroCredits(amount),
            reason,
            at,
        };
        Ok(rows.map_err(reading("a ledger's entries"))?.into_iter().map(entry).collect())
    }

    /// What does not add up: postings that do not sum to zero, accounts that do not hold the sum of their entries, and
    /// turns that ended without being settled. Reads everything there is.
    pub async fn ledger_faults(&self) -> Result<Vec<String>, StoreError> {
        let faults = |error| reading("the ledgers")(error);
        let postings = query(
            "SELECT posting, CAST(SUM(amount) AS BIGINT) FROM ledger_entry GROUP BY posting HAVING SUM(amount) <> 0 LIMIT 100",
        );
        let postings = postings.all::<(String, i64)>(&self.readers).await.map_err(faults)?;
        let accounts = query(
            "SELECT ledger_account.ledger, ledger_account.account, balance, CAST(COALESCE(entries.total, 0) AS BIGINT)
             FROM ledger_account LEFT JOIN
                  (SELECT ledger, account, SUM(amount) AS total FROM ledger_entry GROUP BY ledger, account) AS entries
               ON entries.ledger = ledger_account.ledger AND entries.account = ledger_account.account
             WHERE balance <> COALESCE(entries.total, 0) LIMIT 100",
        );
        let accounts = accounts.all::<(String, String, i64, i64)>(&self.readers).await.map_err(faults)?;
        let homeless = query(
            "SELECT DISTINCT ledger_entry.ledger, ledger_entry.account FROM ledger_entry LEFT JOIN ledger_account
               ON ledger_entry.ledger = ledger_account.ledger AND ledger_entry.account = ledger_account.account
             WHERE ledger_account.ledger IS NULL LIMIT 100",
        );
        let homeless = homeless.all::<(String, String)>(&self.readers).await.map_err(faults)?;
        let unsettled = query("SELECT turn_id, why FROM unsettled_turn ORDER BY at, turn_id LIMIT 100");
        let unsettled = unsettled.all::<(String, String)>(&self.readers).await.map_err(faults)?;
        let unpaid = |(turn, why)| format!("the turn {turn} ended without being settled: {why}");
        let off = |(posting, sum)| format!("the posting {posting} sums to {} credits", MicroCredits(sum));
        let wrong = |(ledger, account, balance, sum)| {
            let (balance, sum) = (MicroCredits(balance), MicroCredits(sum));
            format!("the account {account} of {ledger} says {balance} credits, and its entries sum to {sum}")
        };
        let lost =
            |(ledger, account)| format!("there are entries of {account} of {ledger}, and no such account");
        Ok(postings
            .into_iter()
            .map(off)
            .chain(accounts.into_iter().map(wrong))
            .chain(homeless.into_iter().map(lost))
            .chain(unsettled.into_iter().map(unpaid))
            .collect())
    }
}

/// Held until the transaction ends. The writer takes it before anything else of a group that touches money or usage: taken
/// in the middle, while rows of turns are held already, two servers would wait for each other in a circle.
pub(crate) async fn lock(db: &mut Connection) -> Result<(), StoreError> {
    // An engine with one writer needs none.
    if db.for_update().is_empty() {
        return Ok(());
    }
    let sql = format!("SELECT id FROM money_lock WHERE id = 1{}", db.for_update());
    query_built(sql).one::<(i64,)>(db).await.map(drop).map_err(writing("the ledgers' lock"))
}

pub(crate) async fn open(
    db: &mut Connection,
    posting: &Posting,
    is_stated: bool,
    at: f64,
) -> Result<u64, StoreError> {
    add_to(db, posting.ledger.as_str(), CUSTOMER, 0).await?;
    if !is_stated {
        return Ok(0);
    }
    enter(db, &format!("opening/{}", posting.ledger), posting, at).await
}

pub(crate) async fn post(db: &mut Connection, posting: &Posting, at: f64) -> Result<u64, StoreError> {
    let known = query("SELECT balance FROM ledger_account WHERE ledger = $1 AND account = $2");
    let known = known.bind(posting.ledger.as_str()).bind(CUSTOMER).optional::<(i64,)>(&mut *db).await;
    if known.map_err(writing("a posting"))?.is_none() {
        return Err(StoreError::NoSuchLedger(posting.ledger.clone()));
    }
    let name = format!("admin/{}/{}", posting.ledger, posting.key);
    if enter(db, &name, posting, at).await? > 0 {
        return Ok(1);
    }
    let before = query("SELECT kind, amount FROM ledger_entry WHERE posting = $1 AND account = $2");
    let before = before.bind(&name).bind(CUSTOMER).one::<(String, i64)>(db).await;
    match before.map_err(writing("a posting"))? {
        (kind, amount) if kind == posting.kind.name() && amount == posting.amount.0 => Ok(0),
        _ => Err(StoreError::PostingDiffers(posting.key.clone())),
    }
}

/// Both rows and both accounts, unless a posting of this name is there; 1 when it was new.
async fn enter(db: &mut Connection, name: &str, posting: &Posting, at: f64) -> Result<u64, StoreError> {
    let (ledger, kind, amount) = (posting.ledger.as_str(), posting.kind.name(), posting.amount.0);
    for (account, amount) in [(CUSTOMER, amount), (kind, -amount)] {
        let entry = query(
            "INSERT INTO ledger_entry (posting, account, ledger, kind, amount, reason, at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (posting, account) DO NOTHING",
        );
        let entry = entry.bind(name).bind(account).bind(ledger).bind(kind).bind(amount);
        let entered = entry.bind(&posting.reason).bind(at).execute(&mut *db).await;
        if entered.map_err(writing("a posting"))? == 0 {
            return Ok(0);
        }
        add_to(db, ledger, account, amount).await?;
    }
    Ok(1)
}

/// Changes what an account holds; it is made where there is none.
pub(crate) async fn add_to(
    db: &mut Connection,
    ledger: &str,
    account: &str,
    amount: i64,
) -> Result<(), StoreError> {
    let added = query(
        "INSERT INTO ledger_account (ledger, account, balance) VALUES ($1, $2, $3)
         ON CONFLICT (ledger, account) DO UPDATE SET balance = ledger_account.balance + excluded.balance",
    );
    let added = added.bind(ledger).bind(account).bind(amount).execute(db).await;
    added.map(drop).map_err(writing("a balance"))
}

/// What a turn could still take from the ledger: its balance without what other turns have set aside.
pub(crate) async fn available(db: &mut Connection, ledger: &str, turn: &str) -> Result<i64, StoreError> {
    let available = query(
        "SELECT CAST(COALESCE((SELECT balance FROM ledger_account WHERE ledger = $1 AND account = $2), 0)
                     - COALESCE((SELECT SUM(amount) FROM hold WHERE ledger = $1 AND turn_id <> $3), 0) AS BIGINT)",
    );
    let available = available.bind(ledger).bind(CUSTOMER).bind(turn).one::<(i64,)>(db).await;
    Ok(available.map_err(writing("a reservation"))?.0)
}

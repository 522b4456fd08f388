//! What an operator does beside the configuration: credits, usage of everybody, the audit's export. Not for callers
//! with a key: who reaches this has the server's data directory.

use std::sync::Arc;

use palisade_protocol::audit::AuditEvent;
use palisade_protocol::money::{CREDITS_PER_POSTING_MAX, CreditMode, MICRO};
use palisade_protocol::rate::{RateLimits, Used};
use palisade_protocol::{Error, ErrorKind, LedgerName, MicroCredits, TenantName, limits};
use palisade_store::{AuditRange, LedgerEntry, LedgerState, Posting, PostingKind};

use crate::Runtime;
use crate::clock::now;
use crate::vault::Vault;

/// The operations of an operator: a handle that is cheap to clone.
#[derive(Clone)]
pub struct Admin {
    runtime: Runtime,
}

/// A ledger as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSummary {
    /// What it holds.
    pub state: LedgerState,
    /// On which terms; `None` for one that no tenant names any more.
    pub mode: Option<CreditMode>,
    /// The tenants that spend from it, by name.
    pub tenants: Vec<TenantName>,
}

/// Credits to be added or corrected.
#[derive(Debug, Clone)]
pub struct PostingDraft {
    /// To whom.
    pub ledger: String,
    /// Whether something is put right, rather than added.
    pub is_correction: bool,
    /// Below zero takes away, for a correction.
    pub amount: MicroCredits,
    /// For people.
    pub reason: String,
    /// What the operator calls it, so that it is made once; of our making when absent.
    pub key: Option<String>,
}

/// What became of a posting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// What it is called.
    pub key: String,
    /// False: it had been made before.
    pub is_new: bool,
    /// What the ledger holds now.
    pub balance: MicroCredits,
}

/// What one caller has used of what it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSummary {
    /// Whose token.
    pub tenant: TenantName,
    /// The token, by its configured id.
    pub caller: String,
    /// `session_turn` or `response`.
    pub bucket: String,
    /// In the hour and in the day.
    pub used: [Used; 2],
    /// `None` for a tenant that is not configured any more.
    pub limits: Option<RateLimits>,
}

impl Runtime {
    /// For whoever has the data directory; never for a request that came over the network.
    pub fn admin(&self) -> Admin {
        Admin { runtime: self.clone() }
    }
}

impl Admin {
    /// Completes when the server has begun to drain.
    pub async fn drained(&self) {
        self.runtime.drained().await;
    }

    /// The credentials of every tenant.
    pub fn vault(&self) -> &Vault {
        self.runtime.vault()
    }

    /// See [`Runtime::vault_applied`].
    pub async fn vault_applied(&self) {
        self.runtime.vault_applied().await;
    }

    /// The tenant of this name; without a name the only one there is.
    pub fn tenant(&self, name: Option<&str>) -> Result<TenantName, Error> {
        let live = self.runtime.rooms.live();
        let mut names: Vec<&TenantName> = live.tenants.keys().collect();
        names.sort();
        let found = match name {
            Some(name) => names.iter().find(|tenant| tenant.as_str() == name),
            None if names.len() == 1 => names.first(),
            None => None,
        };
        let all = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        found.map(|tenant| (*tenant).clone()).ok_or_else(|| match name {
            Some(_) => Error::new(
                ErrorKind::NotFound,
                "tenant.not_found",
                format!("there is no such tenant; there are {all}"),
            ),
            None => Error::new(
                ErrorKind::Malformed,
                "tenant.unnamed",
                format!("name one of the tenants with --tenant: {all}"),
            ),
        })
    }

    /// Every ledger, by name.
    pub async fn ledgers(&self) -> Result<Vec<LedgerSummary>, Error> {
        let rooms = &self.runtime.rooms;
        let live = rooms.live();
        let summary = |state: LedgerState| {
            let spends =
                |tenant: &&Arc<crate::tenant::Tenant>| tenant.config.ledger.as_ref() == Some(&state.ledger);
            let mut tenants: Vec<TenantName> =
                live.tenants.values().filter(spends).map(|tenant| tenant.config.name.clone()).collect();
            tenants.sort();
            let mode = live.billing.ledger(&state.ledger).map(|terms| terms.mode);
            LedgerSummary { mode, tenants, state }
        };
        Ok(rooms.store.ledgers().await?.into_iter().map(summary).collect())
    }

    /// One ledger, and its latest entries, newest first.
    pub async fn ledger(
        &self,
        name: &str,
        entries: usize,
    ) -> Result<(LedgerSummary, Vec<LedgerEntry>), Error> {
        let name = ledger_name(name)?;
        let found = self.ledgers().await?.into_iter().find(|ledger| ledger.state.ledger == name);
        let found =
            found.ok_or_else(|| Error::from(palisade_store::StoreError::NoSuchLedger(name.clone())))?;
        let entries = entries.min(limits::POSTINGS_SHOWN_MAX) as i64;
        Ok((found, self.runtime.rooms.store.ledger_entries(&name, entries).await?))
    }

    /// What does not add up, in sentences; reads every ledger whole.
    pub async fn ledger_faults(&self) -> Result<Vec<String>, Error> {
        Ok(self.runtime.rooms.store.ledger_faults().await?)
    }

    /// Adds or corrects credits, once per key.
    pub async fn post(&self, draft: PostingDraft) -> Result<Posted, Error> {
        let ledger = ledger_name(&draft.ledger)?;
        let kind = if draft.is_correction { PostingKind::Correction } else { PostingKind::TopUp };
        check_amount(kind, draft.amount)?;
        let reason = draft.reason.trim();
        check_text("reason", reason, limits::POSTING_REASON_BYTES_MAX)?;
        let key = match draft.key {
            Some(key) => key,
            None => palisade_vault::random_hex::<12>().map_err(Error::bug)?,
        };
        check_text("key", &key, limits::POSTING_KEY_BYTES_MAX)?;
        let posting = Posting {
            ledger: ledger.clone(),
            kind,
            key: key.clone(),
            amount: draft.amount,
            reason: reason.to_owned(),
        };
        let store = &self.runtime.rooms.store;
        let is_new = store.post(posting, now()).await?;
        let balance = store.balance(&ledger).await?;
        tracing::info!(ledger = %ledger, amount = %draft.amount, kind = kind.name(), key, is_new, "credits posted");
        Ok(Posted { key, is_new, balance })
    }

    /// What every caller has used that has used anything in the last day.
    pub async fn usage(&self) -> Result<Vec<CallerSummary>, Error> {
        let rooms = &self.runtime.rooms;
        let live = rooms.live();
        let summary = |usage: palisade_store::CallerUsage| CallerSummary {
            limits: live.tenants.get(&usage.tenant).map(|tenant| tenant.config.rate),
            tenant: usage.tenant,
            caller: usage.caller,
            bucket: usage.bucket,
            used: usage.used,
        };
        Ok(rooms.store.usage_of_all(now()).await?.into_iter().map(summary).collect())
    }

    /// The next audit records of the range after the last one seen, oldest first; none at its end.
    pub async fn audit_page(
        &self,
        range: &AuditRange,
        after: Option<&AuditEvent>,
    ) -> Result<Vec<AuditEvent>, Error> {
        let after = after.map(|event| (event.at, event.id.as_str()));
        let limit = limits::AUDIT_PAGE_EVENTS as i64;
        Ok(self.runtime.rooms.store.audit_events(range, after, limit).await?)
    }
}

fn ledger_name(name: &str) -> Result<LedgerName, Error> {
    LedgerName::parse(name)
        .map_err(|error| Error::new(ErrorKind::Malformed, "ledger.bad_name", error.to_string()))
}

fn check_amount(kind: PostingKind, amount: MicroCredits) -> Result<(), Error> {
    let malformed = |message: &str| Err(Error::new(ErrorKind::Malformed, "ledger.bad_amount", message));
    if amount.0.unsigned_abs() > (CREDITS_PER_POSTING_MAX * MICRO).unsigned_abs() {
        return malformed("the amount is larger than one posting may move");
    }
    match (kind, amount.0) {
        (_, 0) => malformed("the amount is nothing"),
        (PostingKind::TopUp, ..0) => malformed("credits are added; taking some away is a correction"),
        _ => Ok(()),
    }
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("the {what} has from 1 to {bytes_max} bytes and stands on one line");
    Err(Error::new(ErrorKind::Malformed, "ledger.bad_text", message))
}

//! The operator's side, over a socket in the data directory that nobody else can open. Who can reach it has every
//! right, so there are no keys here; and nothing of it may ever be served on the network.

mod vault;

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use palisade_protocol::audit::{AuditEvent, CSV_HEADER};
use palisade_protocol::money::CreditMode;
use palisade_protocol::rate::{WINDOWS, Window};
use palisade_protocol::{Error, ErrorKind, MicroCredits, limits};
use palisade_runtime::{Admin, AuditRange, CallerSummary, LedgerSummary, PostingDraft, Runtime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::error::{ApiError, no_such_endpoint, no_such_method};
use crate::extract::{JsonBody, Query};

/// How long requests that run may take once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the operator until the server drains.
pub async fn serve_admin(listener: UnixListener, runtime: Runtime) -> std::io::Result<()> {
    let admin = runtime.admin();
    let router = Router::new()
        .route("/ledgers", get(ledgers))
        .route("/ledgers/{name}", get(ledger))
        .route("/ledgers/{name}/postings", post(post_credits))
        .route("/ledger-faults", get(ledger_faults))
        .route("/usage", get(usage))
        .route("/audit", get(audit))
        .merge(vault::routes())
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(no_such_method)
        .with_state(admin.clone());
    let (draining, cut) = (admin.clone(), admin);
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { draining.drained().await })
        .into_future();
    // An export that nobody reads must not hold up the end.
    let overdue = async move {
        cut.drained().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => Ok(()),
    }
}

#[derive(Serialize)]
struct LedgerBody {
    ledger: String,
    /// Absent for a ledger that no tenant names any more.
    mode: Option<CreditMode>,
    balance: f64,
    balance_micro: MicroCredits,
    held: f64,
    held_micro: MicroCredits,
    tenants: Vec<String>,
}

impl From<LedgerSummary> for LedgerBody {
    fn from(ledger: LedgerSummary) -> Self {
        Self {
            ledger: ledger.state.ledger.to_string(),
            mode: ledger.mode,
            balance: ledger.state.balance.to_credits(),
            balance_micro: ledger.state.balance,
            held: ledger.state.held.to_credits(),
            held_micro: ledger.state.held,
            tenants: ledger.tenants.iter().map(ToString::to_string).collect(),
        }
    }
}

async fn ledgers(State(admin): State<Admin>) -> Result<Json<Vec<LedgerBody>>, ApiError> {
    Ok(Json(admin.ledgers().await?.into_iter().map(LedgerBody::from).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntriesOf {
    /// How many of the latest entries.
    entries: Option<usize>,
}

/// Entries shown when nobody says how many.
const ENTRIES_DEFAULT: usize = 20;

async fn ledger(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Query(asked): Query<EntriesOf>,
) -> Result<Json<Value>, ApiError> {
    let (summary, entries) = admin.ledger(&name, asked.entries.unwrap_or(ENTRIES_DEFAULT)).await?;
    let entry = |entry: &palisade_runtime::LedgerEntry| {
        json!({
            "posting": entry.posting, "kind": entry.kind, "amount": entry.amount.to_credits(),
            "amount_micro": entry.amount, "reason": entry.reason, "at": entry.at,
        })
    };
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    let mut body = serde_json::to_value(LedgerBody::from(summary)).map_err(Error::bug)?;
    body["entries"] = entries.into();
    Ok(Json(body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PostingBody {
    /// `top_up` or `correction`.
    kind: PostingBodyKind,
    /// In credits, as text: exact.
    amount: String,
    reason: String,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PostingBodyKind {
    TopUp,
    Correction,
}

async fn post_credits(
    State(admin): State<Admin>,
    Path(ledger): Path<String>,
    JsonBody(body): JsonBody<PostingBody>,
) -> Result<Json<Value>, ApiError> {
    let amount = MicroCredits::parse(&body.amount)
        .map_err(|error| Error::new(ErrorKind::Malformed, "ledger.bad_amount", error.to_string()))?;
    let draft = PostingDraft {
        ledger: ledger.clone(),
        is_correction: matches!(body.kind, PostingBodyKind::Correction),
        amount,
        reason: body.reason,
        key: body.key,
    };
    let posted = admin.post(draft).await?;
    Ok(Json(json!({
        "ledger": ledger, "key": posted.key, "posted": posted.is_new,
        "balance": posted.balance.to_credits(), "balance_micro": posted.balance,
    })))
}

async fn ledger_faults(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"faults": admin.ledger_faults().await?})))
}

async fn usage(State(admin): State<Admin>) -> Result<Json<Vec<Value>>, ApiError> {
    Ok(Json(admin.usage().await?.iter().map(usage_body).collect()))
}

fn usage_body(caller: &CallerSummary) -> Value {
    let window = |(at, window): (usize, Window)| {
        let limit = caller.limits.and_then(|limits| limits.0[at]);
        json!({
            "name": window.name, "turns": caller.used[at].turns, "tokens": caller.used[at].tokens,
            "max_turns": limit.map(|limit| limit.turns_max), "max_tokens": limit.map(|limit| limit.tokens_max),
            "enabled": limit.is_some(),
        })
    };
    let windows: Vec<Value> = WINDOWS.into_iter().enumerate().map(window).collect();
    json!({"tenant": caller.tenant.as_str(), "caller_id": caller.caller, "bucket": caller.bucket, "windows": windows})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditOf {
    #[serde(default)]
    format: AuditFormat,
    /// Unix seconds.
    since: Option<f64>,
    until: Option<f64>,
    tenant: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum AuditFormat {
    #[default]
    Jsonl,
    Csv,
}

/// Written as it is read, a page at a time: its size is of no matter.
async fn audit(State(admin): State<Admin>, Query(asked): Query<AuditOf>) -> Result<Response, ApiError> {
    let (since, until) = (asked.since.unwrap_or(0.0), asked.until.unwrap_or(f64::MAX));
    let range = AuditRange { since, until, tenant: asked.tenant };
    // The first page before the head, so that a fault is an error and no empty file.
    let first = admin.audit_page(&range, None).await?;
    let format = asked.format;
    let (head, content_type) = match format {
        AuditFormat::Jsonl => ("", "application/jsonl"),
        AuditFormat::Csv => (CSV_HEADER, "text/csv; charset=utf-8"),
    };
    let pages = stream::unfold(Some(first), move |page| {
        let (admin, range) = (admin.clone(), range.clone());
        async move {
            let page = page.filter(|page| !page.is_empty())?;
            let text = Bytes::from(written(format, &page));
            if page.len() < limits::AUDIT_PAGE_EVENTS {
                return Some((Ok(text), None));
            }
            match admin.audit_page(&range, page.last()).await {
                Ok(next) => Some((Ok(text), Some(next))),
                // The body breaks off, which its reader sees.
                Err(error) => {
                    tracing::error!(error = %palisade_protocol::chain(&error), "an export broke off");
                    Some((Err(error), None))
                }
            }
        }
    });
    let head = stream::iter([Ok(Bytes::from_static(head.as_bytes()))]);
    let body = axum::body::Body::from_stream(futures_util::StreamExt::chain(head, pages));
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

fn written(format: AuditFormat, page: &[AuditEvent]) -> String {
    let line = match format {
        AuditFormat::Jsonl => AuditEvent::to_json_line,
        AuditFormat::Csv => AuditEvent::to_csv_line,
    };
    page.iter().map(line).collect()
}

//! Sees every request: gives it an id, logs one line about it, counts it. Must not log bodies, keys, queries or
//! file names: the route stands for the path.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use palisade_runtime::{Metrics, OpCtx, Runtime};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tracing::Instrument as _;

const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken over from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

/// What the gateway counts.
#[derive(Clone)]
pub(crate) struct HttpMetrics {
    requests: Family<Answered, Counter>,
    seconds: Histogram,
}

impl HttpMetrics {
    /// Adds the gateway's families to the runtime's registry.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        // From half a millisecond to 16 seconds.
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let this = Self { requests: Family::default(), seconds };
        metrics.with_registry(|registry| {
            registry.register("http_requests", "Requests, by route and status", this.requests.clone());
            registry.register("http_head_seconds", "Time to the head of an answer", this.seconds.clone());
        });
        this
    }
}

/// The outermost layer.
pub(crate) async fn observe(
    State((runtime, metrics)): State<(Runtime, HttpMetrics)>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let id = given_id(&request).unwrap_or_else(|| runtime.new_request_id());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", request_id = %id);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), began.elapsed());
    span.in_scope(|| {
        let caller = response.extensions().get::<OpCtx>();
        let (tenant, token) = caller.map_or(("", ""), |ctx| (ctx.tenant().as_str(), ctx.token_id()));
        tracing::info!(%method, route, status, tenant, token, head_ms = elapsed.as_secs_f64() * 1e3, "request");
    });
    metrics.seconds.observe(elapsed.as_secs_f64());
    // A method is a word of the client's: only the usual ones may become a label.
    let method = if matches!(method.as_str(), "GET" | "HEAD" | "PUT" | "POST" | "DELETE") {
        method.as_str()
    } else {
        "other"
    };
    metrics.requests.get_or_create(&Answered { method: method.to_owned(), route, status }).inc();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn given_id(request: &Request) -> Option<String> {
    let id = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let sane = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    sane.then(|| id.to_owned())
}

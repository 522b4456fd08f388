//! Who is asking. Everything needs a key but a constant list (decision 12), so that a new route is closed until
//! somebody opens it on purpose.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use palisade_protocol::{Error, ErrorKind};
use palisade_runtime::{OpCtx, Runtime};

use crate::admission::Visit;
use crate::cors;
use crate::error::ApiError;

/// Paths that answer without a key.
pub(crate) const OPEN_PATHS: [&str; 4] = ["/health", "/ready", "/openapi.json", "/docs"];

/// Puts the caller's [`OpCtx`] into the request, or refuses it.
pub(crate) async fn authenticate(
    State(runtime): State<Runtime>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = bearer(request.headers()).and_then(|key| runtime.authenticate(key));
    match caller.filter(|ctx| host(&request).is_none_or(|host| runtime.is_endpoint_of(ctx, &host))) {
        Some(ctx) => {
            let visit = request.extensions().get::<Arc<Visit>>().cloned();
            let refused = visit.as_ref().and_then(|visit| visit.enter(ctx.tenant()).err());
            request.extensions_mut().insert(ctx.clone());
            let mut response = match refused {
                // What answers anybody answers a tenant with too many requests, too.
                Some(refused) if !is_open(&request) => ApiError(refused).into_response(),
                _ => next.run(request).await,
            };
            if let Some(visit) = visit {
                visit.release_body();
            }
            // For the observer, which logs whose request it was.
            response.extensions_mut().insert(ctx);
            response
        }
        None if is_open(&request) => next.run(request).await,
        None if cors::is_preflight(&request) => ApiError(cors::not_allowed()).into_response(),
        None => ApiError(unauthenticated()).into_response(),
    }
}

fn is_open(request: &Request) -> bool {
    OPEN_PATHS.contains(&request.uri().path())
}

/// The host name that the client speaks to, without its port, in small letters.
fn host(request: &Request) -> Option<String> {
    let named = request.uri().authority().map(|authority| authority.as_str());
    let named = named.or_else(|| request.headers().get(HOST)?.to_str().ok())?;
    let name = match named.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => named,
    };
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn unauthenticated() -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "auth.invalid_key",
        "no valid key; send 'Authorization: Bearer pk_<tenant>_<token>'",
    )
}

/// The caller, where a handler needs one. The layer above has put it there.
pub(crate) struct Caller(pub(crate) OpCtx);

impl<S: Sync> axum::extract::FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<OpCtx>().cloned().map(Self).ok_or_else(|| ApiError(unauthenticated()))
    }
}

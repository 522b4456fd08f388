//! The OpenAPI 3.1 document, generated from the routes.

use axum::http::StatusCode;
use serde_json::Value;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Palisade", description = "A self-hosted, per-tenant runtime for long-running AI agents. Every endpoint but /health, /ready, /openapi.json and /docs needs `Authorization: Bearer pk_<tenant>_<token>`. A request body or a query with a field that its endpoint does not know is refused with 400, so that a misspelt wish is not taken for a fulfilled one; answers and events may gain fields at any time. Where there is GET there is HEAD. A body in a Content-Encoding is 415, a body over its bound 413, a head over its bound 431. Errors have one form: `error`, `message`, and a stable `code`."),
    security(("key" = [])),
    modifiers(&Key)
)]
struct Document;

struct Key;

impl utoipa::Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_with(Default::default).add_security_scheme("key", scheme);
    }
}

/// The document as JSON. Paths are as OpenAPI writes them: a router's `{*path}` is `{path}`.
pub fn document() -> Value {
    let mut described = Document::openapi();
    described.merge(crate::routes::described().into_openapi());
    let mut document = serde_json::to_value(described).unwrap_or_default();
    describe_answers(&mut document);
    if let Some(paths) = document["paths"].as_object_mut() {
        *paths =
            std::mem::take(paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    }
    document
}

/// OpenAPI wants a description of every answer; one that was given none has its status's.
fn describe_answers(document: &mut Value) {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    for answers in operations.filter_map(|operation| operation["responses"].as_object_mut()) {
        for (status, answer) in answers {
            let reason =
                StatusCode::from_bytes(status.as_bytes()).ok().and_then(|status| status.canonical_reason());
            if answer["description"].as_str().is_none_or(str::is_empty) {
                answer["description"] = reason.unwrap_or("an answer").into();
            }
        }
    }
}

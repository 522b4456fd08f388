//! The OpenAPI 3.1 document, generated from the routes.

use serde_json::Value;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Palisade", description = "A self-hosted, per-tenant runtime for long-running AI agents. Every endpoint but /health, /ready, /openapi.json and /docs needs `Authorization: Bearer pk_<tenant>_<token>`."),
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
    if let Some(paths) = document["paths"].as_object_mut() {
        *paths =
            std::mem::take(paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    }
    document
}

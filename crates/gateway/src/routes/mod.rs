//! Every route, grouped by what it is about. The OpenAPI document is made from the same lines.

mod conversation;
mod files;
mod messages;
mod meta;
mod models;
mod planned;
mod sessions;
mod tool_results;
mod usage;
pub(crate) mod vault;

use axum::Router;
pub(crate) use meta::{health, metrics};
use palisade_runtime::Runtime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes that the document describes.
pub(crate) fn described() -> OpenApiRouter<Runtime> {
    OpenApiRouter::new()
        .routes(routes!(meta::health))
        .routes(routes!(meta::ready))
        .routes(routes!(meta::metrics))
        .routes(routes!(sessions::create, sessions::list, sessions::delete_many))
        .routes(routes!(sessions::show, sessions::delete))
        .routes(routes!(messages::send, conversation::list))
        .routes(routes!(messages::events))
        .routes(routes!(messages::cancel))
        .routes(routes!(tool_results::answer))
        .routes(routes!(files::list))
        .routes(routes!(files::get, files::put, files::delete))
        .routes(routes!(models::list))
        .routes(routes!(usage::show))
        .routes(routes!(vault::list))
        .routes(routes!(vault::put, vault::delete))
}

/// All routes.
pub(crate) fn all() -> Router<Runtime> {
    let (router, _) = described().split_for_parts();
    router.merge(meta::documents()).merge(files::root()).merge(planned::routes())
}

//! The vault as an operator has it: any tenant's credentials, the keys, sealing. Values go in here and never come out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use palisade_protocol::{Error, ErrorKind, TenantName};
use palisade_runtime::{Admin, KekKind, SecretString, VaultState};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::{CredentialNamed, Query, SecretBody};
use crate::routes::vault::{CredentialBody, CredentialView};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/vault", get(state))
        .route("/vault/seal", post(seal))
        .route("/vault/unseal", post(unseal))
        .route("/vault/rotate", post(rotate))
        .route("/vault/rotate-key", post(rotate_key))
        .route("/vault/credentials", get(list))
        .route("/vault/credentials/{name}", put(store).delete(delete))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTenant {
    /// The only tenant where it is absent.
    tenant: Option<String>,
}

impl OfTenant {
    fn name(&self, admin: &Admin) -> Result<TenantName, Error> {
        admin.tenant(self.tenant.as_deref())
    }
}

fn state_body(state: &VaultState) -> Json<Value> {
    Json(json!({
        "sealed": state.is_sealed, "kind": state.kind, "generation": state.generation, "rotating": state.is_rotating,
    }))
}

async fn state(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    Ok(state_body(&admin.vault().state().await?))
}

async fn seal(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    admin.vault().seal().await?;
    state(State(admin)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    /// The key or the passphrase; absent: from where the configuration says.
    key: Option<SecretString>,
    /// `key` or `passphrase`, where a new one is of another kind.
    kind: Option<String>,
}

async fn unseal(
    State(admin): State<Admin>,
    SecretBody(body): SecretBody<KeyBody>,
) -> Result<Json<Value>, ApiError> {
    admin.vault().unseal(body.key).await?;
    state(State(admin)).await
}

async fn rotate_key(
    State(admin): State<Admin>,
    SecretBody(body): SecretBody<KeyBody>,
) -> Result<Json<Value>, ApiError> {
    let kind = body.kind.as_deref().map(KekKind::parse).transpose();
    let kind =
        kind.map_err(|_| Error::new(ErrorKind::Malformed, "vault.bad_kind", "kind is key or passphrase"))?;
    Ok(state_body(&admin.vault().rotate_key(body.key.map(|key| (kind, key))).await?))
}

async fn rotate(State(admin): State<Admin>, Query(of): Query<OfTenant>) -> Result<Json<Value>, ApiError> {
    let tenant = of.tenant.as_deref().map(|name| admin.tenant(Some(name))).transpose()?;
    Ok(Json(json!({"tenants": admin.vault().rotate_data_keys(tenant.as_ref()).await?})))
}

async fn list(
    State(admin): State<Admin>,
    Query(of): Query<OfTenant>,
) -> Result<Json<Vec<CredentialView>>, ApiError> {
    let credentials = admin.vault().list(&of.name(&admin)?).await?;
    Ok(Json(credentials.into_iter().map(CredentialView::from).collect()))
}

async fn store(
    State(admin): State<Admin>,
    CredentialNamed(name): CredentialNamed,
    Query(of): Query<OfTenant>,
    SecretBody(body): SecretBody<CredentialBody>,
) -> Result<(StatusCode, Json<CredentialView>), ApiError> {
    let (stored, is_new) = admin.vault().put(&of.name(&admin)?, &name, body.into_draft()?).await?;
    admin.vault_applied().await;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(stored.into())))
}

async fn delete(
    State(admin): State<Admin>,
    CredentialNamed(name): CredentialNamed,
    Query(of): Query<OfTenant>,
) -> Result<StatusCode, ApiError> {
    admin.vault().delete(&of.name(&admin)?, &name).await?;
    admin.vault_applied().await;
    Ok(StatusCode::NO_CONTENT)
}

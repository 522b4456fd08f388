//! `/v1/vault`: credentials go in and never come out. What is answered is names and rules.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use palisade_protocol::{CredentialName, Injection};
use palisade_runtime::{
    ClientAuth, CredentialDraft, CredentialInfo, CredentialKind, OAuthDraft, OAuthGrant, Runtime,
    SecretDraft, SecretString,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{CredentialNamed, SecretBody, malformed};

/// A credential to be stored: with `value`, or with `oauth`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialBody {
    /// What is attached, as it is; at most 16 KiB.
    #[schema(value_type = Option<String>, write_only, max_length = 16_384)]
    value: Option<SecretString>,
    /// How an access token is had, which is attached.
    oauth: Option<OAuthBody>,
    /// Where it may go: `name`, `name:port` or `*.suffix`, over TLS only; from 1 to 16 of them.
    #[schema(min_items = 1, max_items = 16)]
    allowed_hosts: Vec<String>,
    /// How it is attached.
    injection: Injection,
    /// The environment variable that shows commands in the sandbox a placeholder of it.
    env: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OAuthBody {
    grant: GrantBody,
    /// https.
    #[schema(max_length = 2048)]
    token_url: String,
    #[schema(max_length = 2048)]
    client_id: String,
    #[schema(value_type = String, write_only, max_length = 16_384)]
    client_secret: SecretString,
    /// For the grant `refresh_token`; replaced when the endpoint gives another one.
    #[schema(value_type = Option<String>, write_only, max_length = 16_384)]
    refresh_token: Option<SecretString>,
    #[schema(max_length = 2048)]
    scope: Option<String>,
    /// How the client shows its secret: `basic` as the standard has it, `post` in the form.
    #[serde(default)]
    client_auth: ClientAuthBody,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrantBody {
    RefreshToken,
    ClientCredentials,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthBody {
    #[default]
    Basic,
    Post,
}

/// A credential, without its value.
#[derive(Serialize, ToSchema)]
pub(crate) struct CredentialView {
    #[schema(value_type = String)]
    name: CredentialName,
    kind: KindView,
    allowed_hosts: Vec<String>,
    injection: Injection,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<String>,
    /// Grows with every change, a renewed token included.
    version: i64,
    /// Unix seconds.
    created_at: f64,
    updated_at: f64,
    /// Of the access token, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KindView {
    Static,
    RefreshToken,
    ClientCredentials,
}

impl From<CredentialInfo> for CredentialView {
    fn from(credential: CredentialInfo) -> Self {
        Self {
            name: credential.name,
            kind: match credential.kind {
                CredentialKind::Static => KindView::Static,
                CredentialKind::OAuth(OAuthGrant::RefreshToken) => KindView::RefreshToken,
                CredentialKind::OAuth(OAuthGrant::ClientCredentials) => KindView::ClientCredentials,
            },
            allowed_hosts: credential.allowed_hosts,
            injection: credential.injection,
            env: credential.env,
            version: credential.version,
            created_at: credential.created_at,
            updated_at: credential.updated_at,
            expires_at: credential.expires_at,
        }
    }
}

impl CredentialBody {
    pub(crate) fn into_draft(self) -> Result<CredentialDraft, ApiError> {
        let secret = match (self.value, self.oauth) {
            (Some(value), None) => SecretDraft::Value(value),
            (None, Some(oauth)) => SecretDraft::OAuth(oauth.into_draft()),
            _ => return Err(malformed("vault.bad_body", "give either value or oauth".to_owned())),
        };
        let (allowed_hosts, injection, env) = (self.allowed_hosts, self.injection, self.env);
        Ok(CredentialDraft { secret, allowed_hosts, injection, env })
    }
}

impl OAuthBody {
    fn into_draft(self) -> OAuthDraft {
        OAuthDraft {
            grant: match self.grant {
                GrantBody::RefreshToken => OAuthGrant::RefreshToken,
                GrantBody::ClientCredentials => OAuthGrant::ClientCredentials,
            },
            token_url: self.token_url,
            client_id: self.client_id,
            client_secret: self.client_secret,
            refresh_token: self.refresh_token,
            scope: self.scope,
            client_auth: match self.client_auth {
                ClientAuthBody::Basic => ClientAuth::Basic,
                ClientAuthBody::Post => ClientAuth::Post,
            },
        }
    }
}

/// Store a credential, in place of the one of this name if there is one. It is attached to requests to its hosts as they leave, and
/// is never shown again.
#[utoipa::path(put, operation_id = "putCredential", path = "/v1/vault/{name}", tag = "vault", params(("name" = String, Path)), request_body = CredentialBody, responses(
    (status = 201, body = CredentialView), (status = 200, description = "it took the place of another", body = CredentialView),
    (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, description = "the vault is sealed", body = ErrorBody)))]
pub(crate) async fn put(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    CredentialNamed(name): CredentialNamed,
    SecretBody(body): SecretBody<CredentialBody>,
) -> Result<(StatusCode, Json<CredentialView>), ApiError> {
    let (stored, is_new) = runtime.vault().put(ctx.tenant(), &name, body.into_draft()?).await?;
    runtime.vault_applied().await;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(stored.into())))
}

/// Remove a credential.
#[utoipa::path(delete, operation_id = "deleteCredential", path = "/v1/vault/{name}", tag = "vault", params(("name" = String, Path)), responses(
    (status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 503, description = "the vault is sealed", body = ErrorBody)))]
pub(crate) async fn delete(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    CredentialNamed(name): CredentialNamed,
) -> Result<StatusCode, ApiError> {
    runtime.vault().delete(ctx.tenant(), &name).await?;
    runtime.vault_applied().await;
    Ok(StatusCode::NO_CONTENT)
}

/// The tenant's credentials by name, with their rules and without their values.
#[utoipa::path(get, operation_id = "listCredentials", path = "/v1/vault", tag = "vault", responses(
    (status = 200, body = Vec<CredentialView>), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
) -> Result<Json<Vec<CredentialView>>, ApiError> {
    let credentials = runtime.vault().list(ctx.tenant()).await?;
    Ok(Json(credentials.into_iter().map(CredentialView::from).collect()))
}

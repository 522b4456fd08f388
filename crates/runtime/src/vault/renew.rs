//! Access tokens: had in time, had once however many ask, and stored before they are used, since an endpoint that gives a new refresh
//! token takes the old one no more. A call that was begun goes on when whoever wanted it has left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use palisade_protocol::{CredentialName, TenantName, limits};
use palisade_vault::{Field, SecretString};

use super::change::{Edit, Put};
use super::fault::Failure;
use super::opened::Opened;
use super::service::FormPost;
use super::settings::Access;
use super::token_endpoint::{self, Refusal, Tokens};
use super::{Vault, lock};
use crate::clock::now;

/// Before its end an access token is replaced, in seconds; a short one in its last quarter.
const AHEAD_S: f64 = 60.0;
/// Between two calls of an endpoint, doubled after each.
const CALL_PAUSE: Duration = Duration::from_millis(250);
/// For how long one server may keep the others from renewing, in seconds: longer than all its calls together.
const CLAIM_S: f64 = 60.0;
/// Between two looks at what another server has made of it.
const CLAIM_LOOK: Duration = Duration::from_millis(250);
/// How often is looked.
const CLAIM_LOOKS_MAX: u32 = 160;

type Key = (TenantName, CredentialName);
type Flight = Shared<BoxFuture<'static, bool>>;

/// What is being renewed, and what could not be a moment ago; never more than there are credentials.
#[derive(Default)]
pub(super) struct Renewals {
    flights: Mutex<HashMap<Key, Flight>>,
    failed: Mutex<HashMap<Key, Instant>>,
}

impl Renewals {
    /// It is another credential now, and may be tried at once.
    pub(super) fn forgive(&self, tenant: &TenantName, name: &CredentialName) {
        lock(&self.failed).remove(&(tenant.clone(), name.clone()));
    }

    fn has_failed(&self, key: &Key) -> bool {
        let kept = Duration::from_millis(limits::TOKEN_FAILURE_KEPT_MS);
        lock(&self.failed).get(key).is_some_and(|at| at.elapsed() < kept)
    }

    fn landed(&self, key: &Key, is_renewed: bool) {
        let mut failed = lock(&self.failed);
        // Whoever was removed meanwhile leaves nothing behind for long.
        failed.retain(|_, at| at.elapsed() < Duration::from_millis(limits::TOKEN_FAILURE_KEPT_MS));
        match is_renewed {
            true => drop(failed.remove(key)),
            false => drop(failed.insert(key.clone(), Instant::now())),
        }
        lock(&self.flights).remove(key);
    }
}

impl Vault {
    /// The token of a credential that has one in `opened`, or a newer one.
    pub(super) async fn access_token(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
        opened: &Arc<Opened>,
    ) -> Result<SecretString, Failure> {
        let access = |opened: &Opened| opened.credentials.get(name).and_then(|found| found.settings.access);
        let kept = access(opened);
        if kept.is_some_and(|access| now() < access.renew_at) {
            return opened.secret(tenant, name, Field::AccessToken);
        }
        if !self.renew(tenant, name).await {
            // It was only to be replaced in good time.
            return match kept.is_some_and(|access| now() < access.expires_at) {
                true => opened.secret(tenant, name, Field::AccessToken),
                false => Err(Failure::Renewal),
            };
        }
        let opened = self.opened(tenant).await?;
        match access(&opened) {
            Some(access) if now() < access.expires_at => opened.secret(tenant, name, Field::AccessToken),
            // It was replaced by somebody in between; whoever asks again gets that.
            _ => Err(Failure::Renewal),
        }
    }

    /// Ends when every renewal has: an answer that was not stored is a token lost.
    pub(crate) async fn settle(&self) {
        let flights: Vec<Flight> = lock(&self.inner.renewals.flights).values().cloned().collect();
        futures_util::future::join_all(flights).await;
    }

    /// One flight for all who want it; whether there is a new token.
    async fn renew(&self, tenant: &TenantName, name: &CredentialName) -> bool {
        let key = (tenant.clone(), name.clone());
        if self.inner.renewals.has_failed(&key) {
            return false;
        }
        let flight = {
            let mut flights = lock(&self.inner.renewals.flights);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let (vault, own) = (self.clone(), key.clone());
                    let task = self.inner.tasks.spawn(async move { vault.fly(own).await });
                    let flight = async move { task.await.unwrap_or(false) }.boxed().shared();
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    async fn fly(&self, key: Key) -> bool {
        let (tenant, name) = &key;
        let renewed = self.renew_once(tenant, name).await;
        if let Err(failure) = &renewed {
            let error = palisade_protocol::chain(failure);
            tracing::warn!(%tenant, credential = %name, %error, "a credential was not renewed");
        }
        self.inner.renewals.landed(&key, renewed.is_ok());
        renewed.is_ok()
    }

    async fn renew_once(&self, tenant: &TenantName, name: &CredentialName) -> Result<(), Failure> {
        let store = &self.inner.store;
        if !store.is_shared() {
            return self.renew_claimed(tenant, name).await;
        }
        for _ in 0..CLAIM_LOOKS_MAX {
            // What the others have made is in the store, whether or not we heard of it yet.
            self.forget(tenant);
            if !self.is_due(tenant, name).await? {
                return Ok(());
            }
            let at = now();
            if store.claim_renewal(tenant, name, at, at + CLAIM_S).await? {
                self.forget(tenant);
                let renewed = self.renew_claimed(tenant, name).await;
                store.release_renewal(tenant, name).await?;
                return renewed;
            }
            tokio::time::sleep(CLAIM_LOOK).await;
        }
        Err(Failure::Renewal)
    }

    async fn is_due(&self, tenant: &TenantName, name: &CredentialName) -> Result<bool, Failure> {
        let opened = self.opened(tenant).await?;
        let credential = opened.credentials.get(name).ok_or(Failure::Missing)?;
        Ok(credential.settings.access.is_none_or(|access| now() >= access.renew_at))
    }

    /// Asks, and stores what was given, if it is still the same credential.
    async fn renew_claimed(&self, tenant: &TenantName, name: &CredentialName) -> Result<(), Failure> {
        let opened = self.opened(tenant).await?;
        let credential = opened.credentials.get(name).ok_or(Failure::Missing)?;
        let Some(oauth) = &credential.settings.oauth else { return Err(Failure::Missing) };
        // Whoever was here just before has done it.
        if credential.settings.access.is_some_and(|access| now() < access.renew_at) {
            return Ok(());
        }
        let secrets = opened.secrets(tenant, name)?;
        let tokens = self.ask(tenant, name, || token_endpoint::request(oauth, &secrets)).await?;
        let (at, asked) = (now(), credential.version);
        let ahead_s = AHEAD_S.min(tokens.lifetime_s / 4.0);
        let expires_at = at + tokens.lifetime_s;
        let access = Access { expires_at, renew_at: expires_at - ahead_s };
        self.change(tenant, |opened| {
            let same = opened.credentials.get(name).filter(|credential| credential.version == asked);
            let mut settings = same.ok_or(Failure::Missing)?.settings.clone();
            settings.access = Some(access);
            let mut secrets = opened.secrets(tenant, name)?;
            secrets.insert(Field::AccessToken, tokens.access.clone());
            secrets.extend(tokens.refresh.clone().map(|token| (Field::RefreshToken, token)));
            let put = Put { name: name.clone(), version: None, settings, secrets };
            Ok((Edit { put: vec![put], ..Edit::default() }, ()))
        })
        .await
    }

    async fn ask(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
        request: impl Fn() -> Option<FormPost>,
    ) -> Result<Tokens, Failure> {
        let mut pause = CALL_PAUSE;
        for call in 1..=limits::TOKEN_CALLS_MAX {
            let refusal = match self.ask_once(request().ok_or(Failure::Renewal)?).await {
                Ok(tokens) => return Ok(tokens),
                Err(refusal) => refusal,
            };
            let Refusal { why, is_passing } = refusal;
            tracing::warn!(%tenant, credential = %name, call, why, "a token endpoint gave no token");
            if !is_passing {
                break;
            }
            if call < limits::TOKEN_CALLS_MAX {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Err(Failure::Renewal)
    }

    async fn ask_once(&self, call: FormPost) -> Result<Tokens, Refusal> {
        let time = Duration::from_millis(limits::TOKEN_CALL_TIMEOUT_MS);
        let passing = |why: String| Refusal { why, is_passing: true };
        match tokio::time::timeout(time, self.inner.calls.post_form(call)).await {
            Err(_) => Err(passing(format!("no answer within {} s", time.as_secs()))),
            Ok(Err(fault)) => Err(passing(palisade_protocol::chain(&fault).to_string())),
            Ok(Ok((status, body))) => token_endpoint::read_answer(status, &body),
        }
    }
}

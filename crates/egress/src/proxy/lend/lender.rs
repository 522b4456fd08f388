//! The server's end: rules go out, questions come in. While a lending is meant to be and is not, sessions' connections wait for it.

use std::{io, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use palisade_protocol::id::TenantName;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::{Mutex, mpsc, oneshot, watch},
};

use super::{
    super::remote::{Duplex, RemoteProxy, TIMEOUT},
    ASKS_MAX, FromProxy, FromServer, LINE_BYTES_MAX, VAULT, Wanted, line,
};
use crate::{CredentialFault, CredentialSource, EgressError, Principal, Secrets, VaultRules};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody wants to lend.
    NotMeant,
    /// The proxy is not there, or has not taken the rules.
    Broken,
    /// The rules are in force, or the proxy has a vault of its own.
    InForce,
}

struct Offer {
    rules: VaultRules,
    taken: oneshot::Sender<Result<(), String>>,
}

/// What a server lends to one proxy.
#[derive(Debug)]
pub(in super::super) struct Lending {
    state: watch::Sender<State>,
    /// To the connection, where there is one.
    offers: Mutex<Option<mpsc::Sender<Offer>>>,
}

impl Default for Lending {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::NotMeant), offers: Mutex::default() }
    }
}

impl Lending {
    /// Returns when nothing stands in the way of a session's connection.
    pub(in super::super) async fn settled(&self) {
        // The sender is ours, so there always is one.
        let _ = self.state.subscribe().wait_for(|state| *state != State::Broken).await;
    }

    async fn broken(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state == State::Broken).await;
    }
}

impl RemoteProxy {
    /// Lends a vault of which these are the rules now; returns when they are in force. The connection stays, and answers what the proxy asks
    /// for; [`Self::lending_broke`] tells when it is to be made anew. From the first call on sessions' connections wait while it is not there.
    pub async fn lend(
        &self,
        vault: &Arc<dyn CredentialSource>,
        rules: VaultRules,
    ) -> Result<(), EgressError> {
        let lending = tokio::time::timeout(TIMEOUT, self.lend_now(vault, rules));
        lending.await.unwrap_or_else(|_| Err(self.unreachable(io::ErrorKind::TimedOut.into())))
    }

    async fn lend_now(
        &self,
        vault: &Arc<dyn CredentialSource>,
        rules: VaultRules,
    ) -> Result<(), EgressError> {
        let mut offers = self.lending.offers.lock().await;
        if let Some(open) = offers.as_ref()
            && let Some(taken) = offer(open, rules.clone()).await
        {
            return taken.map_err(|why| self.not_lent(why));
        }
        self.lending.state.send_replace(State::Broken);
        let stream = self
            .connect_at_once(&Principal::Service, VAULT)
            .await
            .map_err(|source| self.unreachable(source))?;
        let (sender, receiver) = mpsc::channel(1);
        let (lending, vault) = (self.lending.clone(), vault.clone());
        self.tasks.spawn(async move {
            if let Err(error) = serve(stream, &lending, &vault, receiver).await {
                tracing::debug!(%error, "the egress proxy has no vault any more");
                lending.state.send_replace(State::Broken);
            }
        });
        let taken = offer(&sender, rules).await;
        *offers = Some(sender);
        taken.unwrap_or_else(|| Err("it closed the connection".to_owned())).map_err(|why| self.not_lent(why))
    }

    /// Returns when what was lent is not there any more.
    pub async fn lending_broke(&self) {
        self.lending.broken().await;
    }

    fn not_lent(&self, why: String) -> EgressError {
        EgressError::NotLent { proxy: self.address().to_string(), why }
    }
}

/// None: the connection is gone.
async fn offer(to: &mpsc::Sender<Offer>, rules: VaultRules) -> Option<Result<(), String>> {
    let (taken, told) = oneshot::channel();
    to.send(Offer { rules, taken }).await.ok()?;
    told.await.ok()
}

/// One connection. It ends well where the proxy has a vault of its own.
async fn serve(
    stream: Box<dyn Duplex>,
    lending: &Lending,
    vault: &Arc<dyn CredentialSource>,
    mut offers: mpsc::Receiver<Offer>,
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::new(read);
    let (mut said, mut offered, mut secrets) = (Vec::new(), None, FuturesUnordered::new());
    loop {
        // What was read stays in `said` when another branch is faster.
        let mut rest = (&mut read).take((LINE_BYTES_MAX - said.len()) as u64);
        tokio::select! {
            length = rest.read_until(b'\n', &mut said) => {
                if length? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if said.last() != Some(&b'\n') {
                    continue;
                }
                let told = serde_json::from_slice(&said)?;
                said.clear();
                match told {
                    FromProxy::InForce => {
                        lending.state.send_replace(State::InForce);
                        answer(&mut offered, Ok(()));
                    }
                    FromProxy::OwnVault => {
                        lending.state.send_replace(State::InForce);
                        answer(&mut offered, Ok(()));
                        return Ok(());
                    }
                    FromProxy::Refused { why } => answer(&mut offered, Err(why)),
                    FromProxy::Ask { ask, tenant, wanted } if secrets.len() < ASKS_MAX => {
                        let told = look_up(vault.clone(), tenant, wanted);
                        secrets.push(async move { (ask, told.await) });
                    }
                    FromProxy::Ask { .. } => return Err(io::Error::other("the proxy asks for too much at once")),
                }
            }
            offer = offers.recv(), if offered.is_none() => {
                let Some(Offer { rules, taken }) = offer else { return Ok(()) };
                offered = Some(taken);
                write.write_all(&line(&FromServer::Rules(rules))?).await?;
            }
            () = given_up(&mut offered) => return Err(io::ErrorKind::TimedOut.into()),
            Some((ask, told)) = secrets.next() => {
                let exposed = |(name, secret): (_, SecretString)| (name, secret.expose_secret().to_owned());
                let answer = match told {
                    Ok(secrets) => {
                        FromServer::Secrets { ask, secrets: secrets.into_iter().map(exposed).collect() }
                    }
                    Err(fault) => FromServer::Fault { ask, fault },
                };
                let text = line(&answer)?;
                if let FromServer::Secrets { secrets, .. } = answer {
                    drop(secrets.into_iter().map(|(_, secret)| Zeroizing::new(secret)).collect::<Vec<_>>());
                }
                write.write_all(&text).await?;
            }
        }
    }
}

async fn look_up(
    vault: Arc<dyn CredentialSource>,
    tenant: TenantName,
    wanted: Wanted,
) -> Result<Secrets, CredentialFault> {
    match wanted {
        Wanted::Secret(name) => Ok(vec![(name.clone(), vault.secret(&tenant, &name).await?)]),
        Wanted::Known(names) => vault.known(&tenant, names).await,
    }
}

/// Returns when whoever offered does not wait any longer.
async fn given_up(offered: &mut Option<oneshot::Sender<Result<(), String>>>) {
    match offered {
        Some(taken) => taken.closed().await,
        None => std::future::pending().await,
    }
}

fn answer(offered: &mut Option<oneshot::Sender<Result<(), String>>>, told: Result<(), String>) {
    if let Some(taken) = offered.take() {
        // Whoever offered may have gone.
        let _ = taken.send(told);
    }
}

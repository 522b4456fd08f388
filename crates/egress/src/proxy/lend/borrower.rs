//! The proxy's end: rules come in, questions go out.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use palisade_protocol::{CredentialName, id::TenantName};
use secrecy::{SecretString, zeroize::Zeroizing};
use tokio::sync::{mpsc, oneshot};

use super::{
    super::{Shared, connection::Client},
    ASKS_MAX, FromProxy, FromServer, LINE_BYTES_MAX, Wanted, line,
};
use crate::{CredentialFault, CredentialSource, Secrets};

/// How long a server may take for a secret; it may have to ask for a token first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers that lend at a time.
const LENDERS_MAX: usize = 64;

type Answer = Result<Secrets, CredentialFault>;

struct Question {
    tenant: TenantName,
    wanted: Wanted,
    answer: oneshot::Sender<Answer>,
}

/// The vaults of the servers that are connected. All are the same one; whoever came last is asked.
#[derive(Clone, Default)]
pub struct LentVault(Arc<Mutex<Vec<mpsc::Sender<Question>>>>);

impl LentVault {
    fn add(&self, lender: mpsc::Sender<Question>) -> io::Result<()> {
        let mut lenders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lenders.retain(|lender| !lender.is_closed());
        if lenders.len() >= LENDERS_MAX {
            return Err(io::Error::other("too many servers lend their vault at once"));
        }
        lenders.push(lender);
        Ok(())
    }

    fn latest(&self) -> Option<mpsc::Sender<Question>> {
        let lenders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lenders.iter().rev().find(|lender| !lender.is_closed()).cloned()
    }

    fn ask(&self, tenant: &TenantName, wanted: Wanted) -> BoxFuture<'static, Answer> {
        let (answer, told) = oneshot::channel();
        let (lender, question) = (self.latest(), Question { tenant: tenant.clone(), wanted, answer });
        async move {
            let lender = lender.ok_or(CredentialFault::Unavailable)?;
            lender.try_send(question).map_err(|_| CredentialFault::Unavailable)?;
            let told = tokio::time::timeout(PATIENCE, told).await;
            told.ok().and_then(Result::ok).unwrap_or(Err(CredentialFault::Unavailable))
        }
        .boxed()
    }
}

impl CredentialSource for LentVault {
    fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>> {
        let asking = self.ask(tenant, Wanted::Secret(name.clone()));
        async move { asking.await?.pop().map(|(_, secret)| secret).ok_or(CredentialFault::Unavailable) }
            .boxed()
    }

    fn known(&self, tenant: &TenantName, names: Vec<CredentialName>) -> BoxFuture<'static, Answer> {
        self.ask(tenant, Wanted::Known(names))
    }
}

/// Serves one server until it, or the proxy, is gone.
pub(in super::super) async fn serve(
    shared: &Shared,
    lent: &LentVault,
    client: &mut Client,
) -> io::Result<()> {
    let (lender, mut questions) = mpsc::channel(ASKS_MAX);
    let mut lender = Some(lender);
    let (mut open, mut count) = (HashMap::new(), 0_u64);
    loop {
        tokio::select! {
            said = client.read_line(LINE_BYTES_MAX) => {
                let Some(said) = said.map(Zeroizing::new) else { return Ok(()) };
                match serde_json::from_str(&said)? {
                    FromServer::Rules(rules) => {
                        let told = match shared.build(|parts| (parts.0.clone(), rules)) {
                            Ok(_) => FromProxy::InForce,
                            Err(error) => FromProxy::Refused { why: palisade_protocol::chain(&error).to_string() },
                        };
                        // Asked only once its rules are in force.
                        if matches!(told, FromProxy::InForce) && let Some(lender) = lender.take() {
                            lent.add(lender)?;
                        }
                        client.stream.write_all(&line(&told)?).await?;
                    }
                    FromServer::Secrets { ask, secrets } => {
                        let secrets = secrets.into_iter().map(|(name, secret)| (name, secret.into()));
                        answer(&mut open, ask, Ok(secrets.collect()));
                    }
                    FromServer::Fault { ask, fault } => answer(&mut open, ask, Err(fault)),
                }
            }
            Some(Question { tenant, wanted, answer }) = questions.recv(), if open.len() < ASKS_MAX => {
                count += 1;
                open.insert(count, answer);
                client.stream.write_all(&line(&FromProxy::Ask { ask: count, tenant, wanted })?).await?;
            }
            () = shared.stopping.cancelled() => return Ok(()),
        }
    }
}

fn answer(open: &mut HashMap<u64, oneshot::Sender<Answer>>, ask: u64, told: Answer) {
    if let Some(answer) = open.remove(&ask) {
        // Whoever asked may have gone.
        let _ = answer.send(told);
    }
}

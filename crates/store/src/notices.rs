//! What servers that share a database tell each other, with the commit that made it true: PostgreSQL's NOTIFY. A
//! notice only says where to look; the rows are what counts, so that one too many does no harm.

use std::fmt::Write as _;
use std::time::Duration;

use palisade_protocol::{SessionId, TenantName, TurnId};
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::mpsc;

use crate::follow::Wakers;
use crate::vault::VaultWrite;
use crate::write::{Commit, NewTurn, Write};

/// The channel's name.
pub(crate) const CHANNEL: &str = "palisade";

/// One notification, in bytes: PostgreSQL takes less than 8,000.
const PAYLOAD_BYTES_MAX: usize = 7_500;

/// Notices that may wait for the runtime; when more come, it is told to look at everything.
const WAITING_MAX: usize = 1024;

/// After so long a silence the database is asked whether it is still there, and how long it may take to say so.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Between two tries to listen.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that another server did to what may be running here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A running turn is to be cancelled.
    CancelRequested(TurnId),
    /// A client answered calls of a running turn.
    Answered(TurnId),
    /// A turn of the session was started or taken over elsewhere: what is kept for it here is stale.
    Moved(SessionId),
    /// The session is gone.
    Deleted(SessionId),
    /// A turn waits for somebody to take it over.
    Released(TurnId),
    /// A tenant's credentials are others than before.
    VaultChanged(TenantName),
    /// The vault was sealed or unsealed, or has another key.
    VaultKeys,
    /// Some notices were lost.
    Missed,
}

/// What one group has to tell.
#[derive(Debug)]
pub(crate) struct Told {
    lines: Vec<String>,
    server: String,
}

impl Told {
    pub(crate) fn new(server: &str) -> Self {
        Self { lines: Vec::new(), server: server.to_owned() }
    }

    /// Adds what `write` did.
    pub(crate) fn add(&mut self, write: &Write) {
        let line = match write {
            Write::Commit(Commit { turn, events, .. })
            | Write::EndUnsettled { commit: Commit { turn, events, .. }, .. } => {
                (!events.is_empty()).then(|| format!("e {turn}"))
            }
            Write::StartTurn(NewTurn { session, .. }) => Some(format!("m {session}")),
            Write::TakeOver { session, .. } => Some(format!("m {session}")),
            Write::RequestCancel { turn } => Some(format!("c {turn}")),
            Write::AnswerCalls { turn, .. } => Some(format!("a {turn}")),
            Write::Release { turn, .. } => Some(format!("r {turn}")),
            Write::DeleteSession { session, .. } | Write::DeleteIdleSession { session, .. } => {
                Some(format!("d {session}"))
            }
            Write::Vault(write) => match &**write {
                VaultWrite::Change(change) => Some(format!("v {}", change.tenant)),
                VaultWrite::Seal { .. } | VaultWrite::SwitchKek { .. } => Some("k vault".to_owned()),
                _ => None,
            },
            _ => None,
        };
        self.lines.extend(line);
    }

    /// The notifications to send: the sender's name, and a line for each thing told.
    pub(crate) fn payloads(&self) -> Vec<String> {
        let mut payloads: Vec<String> = Vec::new();
        for line in &self.lines {
            match payloads.last_mut() {
                Some(last) if last.len() + line.len() < PAYLOAD_BYTES_MAX => {
                    // Writing to a String does not fail.
                    let _ = write!(last, "\n{line}");
                }
                _ => payloads.push(format!("{}\n{line}", self.server)),
            }
        }
        payloads
    }
}

/// What one line says.
enum Line {
    Events(TurnId),
    Notice(Notice),
}

fn read(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let (kind, id) = (words.next()?, words.next()?);
    let turn = || TurnId::parse(id).ok();
    let session = || SessionId::parse(id).ok();
    Some(match kind {
        "e" => Line::Events(turn()?),
        "c" => Line::Notice(Notice::CancelRequested(turn()?)),
        "a" => Line::Notice(Notice::Answered(turn()?)),
        "r" => Line::Notice(Notice::Released(turn()?)),
        "m" => Line::Notice(Notice::Moved(session()?)),
        "d" => Line::Notice(Notice::Deleted(session()?)),
        "v" => Line::Notice(Notice::VaultChanged(TenantName::parse(id).ok()?)),
        "k" => Line::Notice(Notice::VaultKeys),
        _ => return None,
    })
}

/// Listens for as long as somebody takes the notices; wakes readers by itself.
pub(crate) async fn listen(
    pool: PgPool,
    wakers: Wakers,
    is_own: impl Fn(&str) -> bool + Send,
    notices: mpsc::Sender<Notice>,
) {
    while !notices.is_closed() {
        if let Err(error) = listen_once(&pool, &wakers, &is_own, &notices).await {
            tracing::warn!(
                error = %palisade_protocol::chain(&error),
                "the other servers cannot be heard; trying again"
            );
        }
        tokio::select! {
            () = notices.closed() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn listen_once(
    pool: &PgPool,
    wakers: &Wakers,
    is_own: &(impl Fn(&str) -> bool + Send),
    notices: &mpsc::Sender<Notice>,
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // From before we listened, and from whenever the connection was lost, something may be missing.
        wakers.wake_all();
        tell(notices, Notice::Missed);
        loop {
            let heard = tokio::select! {
                () = notices.closed() => return Ok(()),
                heard = listener.try_recv() => heard?,
                // A connection that a network has dropped says nothing either.
                () = tokio::time::sleep(SILENCE_MAX) => {
                    let asked = sqlx::query("SELECT 1").execute(&mut listener);
                    match tokio::time::timeout(ANSWER_MAX, asked).await {
                        Ok(answered) => answered.map(drop)?,
                        Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                    }
                    continue;
                }
            };
            let Some(heard) = heard else { break };
            let mut lines = heard.payload().lines();
            if lines.next().is_none_or(is_own) {
                continue;
            }
            for line in lines.filter_map(read) {
                match line {
                    Line::Events(turn) => wakers.wake(&turn),
                    Line::Notice(notice) => tell(notices, notice),
                }
            }
        }
    }
}

/// Never waits: who reads slowly is told that something was missed, which is what the last place is for.
fn tell(notices: &mpsc::Sender<Notice>, notice: Notice) {
    let notice = if notices.capacity() <= 1 { Notice::Missed } else { notice };
    let _ = notices.try_send(notice);
}

pub(crate) fn channel() -> (mpsc::Sender<Notice>, mpsc::Receiver<Notice>) {
    mpsc::channel(WAITING_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let (turn, session) = (TurnId::from_random([7; 12]), SessionId::from_random([7; 6]));
        let mut told = Told::new("here");
        for _ in 0..300 {
            told.add(&Write::RequestCancel { turn: turn.clone() });
            told.add(&Write::TakeOver { session: session.clone(), turn: turn.clone(), generation: 1 });
        }
        let payloads = told.payloads();
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() < 8_000));
        let heard: Vec<_> = payloads
            .iter()
            .flat_map(|payload| {
                assert_eq!(payload.lines().next(), Some("here"));
                payload.lines().skip(1)
            })
            .filter_map(read)
            .filter_map(|line| match line {
                Line::Notice(notice) => Some(notice),
                Line::Events(_) => None,
            })
            .collect();
        assert_eq!(heard.len(), 600);
        assert_eq!(heard[..2], [Notice::CancelRequested(turn), Notice::Moved(session)]);
    }

    #[test]
    fn nonsense_on_the_channel_is_not_heard() {
        for line in ["", "e", "e nonsense 4", "x msg_1", "c ../..", "e ../.."] {
            assert!(read(line).is_none(), "{line}");
        }
    }
}

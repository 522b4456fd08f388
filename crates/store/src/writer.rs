//! The one writer: takes whatever is waiting, applies each write for itself, commits once, answers all.
//!
//! A write that was answered is on the disk. Whose write comes next is the queue's to say. A database on another machine that cannot be reached is waited for, for a while; nothing is written twice by that.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::Fault;
use crate::follow::Wakers;
use crate::link::Link;
use crate::notices::Told;
use crate::queue::{self, Answer, Groups, Owner};
use crate::turns::{append_all, append_all_at_once};
use crate::write::{Commit, NewTurn, Write, apply};
use crate::{StoreError, ledger};

/// Groups between two looks at the size of the write-ahead log.
const GROUPS_PER_LOOK: u32 = 256;

/// Tries of a group that another server's locks stood in the way of.
const CONTENTION_TRIES_MAX: u32 = 5;
/// Before the first of them is tried again; twice as long before each further one.
const CONTENTION_PAUSE: Duration = Duration::from_millis(20);
/// How long another machine may take for a group, and for its COMMIT, before the connection counts as lost.
const GROUP_MAX_S: u64 = 10;
/// How long a lost database is tried for. A lease is over by then, and whoever waits wants to know.
const OUTAGE_MAX: Duration = Duration::from_secs(20);
/// The same once the server stops, counted from there; what is tried after that gets the second.
const STOP_OUTAGE_MAX: Duration = Duration::from_secs(5);
const LAST_TRY_MAX: Duration = Duration::from_secs(1);
/// Between two tries, doubling from the first to the second.
const OUTAGE_PAUSE_MIN: Duration = Duration::from_millis(50);
const OUTAGE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// When the server began to stop: from then on a lost database is waited for no longer than [`STOP_OUTAGE_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<OnceLock<Instant>>);

impl Stop {
    /// From now on nobody waits long for a database that is away.
    pub(crate) fn hurry(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// How long a lost database may still be tried for, of this long altogether since `began`.
    fn left(&self, began: Instant, whole: Duration) -> Duration {
        let left = whole.saturating_sub(began.elapsed());
        self.0.get().map_or(left, |stop| left.min(STOP_OUTAGE_MAX.saturating_sub(stop.elapsed())))
    }
}

/// The handle and the task behind it. `server` is the name under which this server owns turns.
pub(crate) fn start(
    link: Link,
    wakers: Wakers,
    server: watch::Sender<String>,
    stop: Stop,
) -> (Owner, impl Future<Output = ()> + Send) {
    let (owner, groups) = queue::channel();
    (owner, write_groups(link, wakers, server, stop, groups))
}

async fn write_groups(
    mut link: Link,
    wakers: Wakers,
    server: watch::Sender<String>,
    stop: Stop,
    mut groups: Groups,
) {
    let mut written: u32 = 0;
    while let Some(group) = groups.next().await {
        let (writes, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.write, waiting.reply)).unzip();
        let name = server.borrow().clone();
        match write_group(&mut link, &name, &stop, &writes).await {
            Ok(answers) => {
                for ((write, reply), answer) in writes.into_iter().zip(replies).zip(answers) {
                    if answer.is_ok() {
                        note(&wakers, &server, write);
                    }
                    // Who asked may be gone; the write stands all the same.
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(
                    writes = writes.len(),
                    error = %palisade_protocol::chain(&error),
                    "a group was not committed"
                );
                for reply in replies {
                    let _ = reply.send(Err(again(&error, link.is_remote())));
                }
            }
        }
        written = written.wrapping_add(1);
        if written.is_multiple_of(GROUPS_PER_LOOK) {
            link.keep_wal_small().await;
        }
    }
    link.fold_wal().await;
    link.close().await;
}

/// A try that did not succeed.
struct Failed {
    error: StoreError,
    /// Every answer, and the group's number, when only the answer to COMMIT is missing.
    in_doubt: Option<(i64, Vec<Answer>)>,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { error, in_doubt: None }
    }
}

/// One transaction around the whole group, tried again where that helps. An `Err` means that none of it was written.
async fn write_group(
    link: &mut Link,
    server: &str,
    stop: &Stop,
    writes: &[Write],
) -> Result<Vec<Answer>, StoreError> {
    let (began, mut pause) = (Instant::now(), OUTAGE_PAUSE_MIN);
    let (mut at_once, mut contentions) = (true, 0);
    loop {
        let failed = match write_once(link, server, stop, writes, at_once).await {
            Ok(answers) => return Ok(answers),
            Err(failed) => failed,
        };
        // What was begun is over, whatever the driver believes: a full disk lets SQLite roll back by itself.
        link.close().await;
        match failed.error.fault() {
            // One of those that were written at once: each for itself shows which.
            Fault::Refused if at_once => at_once = false,
            Fault::Contention if contentions < CONTENTION_TRIES_MAX => {
                tokio::time::sleep(CONTENTION_PAUSE * 2_u32.pow(contentions)).await;
                contentions += 1;
            }
            Fault::Lost
                if link.is_remote()
                    && (failed.in_doubt.is_some() || !stop.left(began, OUTAGE_MAX).is_zero()) =>
            {
                tracing::warn!(
                    error = %palisade_protocol::chain(&failed.error),
                    "the database was lost; trying again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(OUTAGE_PAUSE_MAX);
                // Asked however long the COMMIT took to fail: nobody may be told that nothing was written.
                if let Some((group, answers)) = failed.in_doubt
                    && was_committed(link, stop, group).await?
                {
                    return Ok(answers);
                }
            }
            _ => return Err(failed.error),
        }
    }
}

/// Whether a group was committed whose COMMIT was not answered; asked until it is known, for a while.
async fn was_committed(link: &mut Link, stop: &Stop, group: i64) -> Result<bool, StoreError> {
    let began = Instant::now();
    loop {
        let asked = async { link.was_committed(group).await.map_err(committing) };
        match in_time(true, stop, asked).await {
            Ok(committed) => return Ok(committed),
            Err(error) => {
                link.close().await;
                if stop.left(began, OUTAGE_MAX).is_zero() {
                    return Err(StoreError::InDoubt {
                        source: sqlx::Error::Protocol(palisade_protocol::chain(&error).to_string()),
                    });
                }
            }
        }
        tokio::time::sleep(OUTAGE_PAUSE_MAX).await;
    }
}

/// `at_once`: the deltas of all streams, which are most of all writes, as one write.
async fn write_once(
    link: &mut Link,
    server: &str,
    stop: &Stop,
    writes: &[Write],
    at_once: bool,
) -> Result<Vec<Answer>, Failed> {
    if at_once
        && !link.is_remote()
        && let Some(appends) = writes.iter().map(Write::as_append).collect::<Option<Vec<_>>>()
        && let Some(answers) =
            append_all_at_once(link.connection().await.map_err(committing)?, &appends).await?
    {
        return Ok(answers);
    }
    let (answers, group) = in_time(link.is_remote(), stop, write_all(link, server, writes, at_once)).await?;
    let Some(group) = group else { return Ok(answers) };
    let is_remote = link.is_remote();
    let committing = async {
        let connection = link.connection().await.map_err(committing)?;
        connection.run("COMMIT").await.map_err(committing)
    };
    match in_time(is_remote, stop, committing).await {
        Ok(()) => Ok(answers),
        Err(error) => Err(Failed { error, in_doubt: group.number.map(|number| (number, answers)) }),
    }
}

/// A group that waits for its COMMIT.
struct Group {
    /// What its outcome can be asked by.
    number: Option<i64>,
}

/// Another machine may never answer; a file does.
async fn in_time<T>(
    is_remote: bool,
    stop: &Stop,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    if !is_remote {
        return work.await;
    }
    let late = || StoreError::Commit { source: sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()) };
    let wait_max = stop.left(Instant::now(), Duration::from_secs(GROUP_MAX_S)).max(LAST_TRY_MAX);
    tokio::time::timeout(wait_max, work).await.unwrap_or_else(|_| Err(late()))
}

/// Everything but the COMMIT; no group where there is nothing to commit.
async fn write_all(
    link: &mut Link,
    server: &str,
    writes: &[Write],
    at_once: bool,
) -> Result<(Vec<Answer>, Option<Group>), StoreError> {
    let db = link.begin().await.map_err(committing)?;
    if writes.iter().any(Write::touches_money) {
        ledger::lock(db).await?;
    }
    let mut answers: Vec<Option<Answer>> = writes.iter().map(|_| None).collect();
    if at_once {
        let appends = || writes.iter().zip(0..).filter_map(|(write, at)| Some((at, write.as_append()?)));
        let commits: Vec<&Commit> = appends().map(|(_, commit)| commit).collect();
        for ((at, _), answer) in appends().zip(append_all(db, &commits).await?) {
            answers[at] = Some(answer);
        }
    }
    let alone = writes.len() == 1;
    for (write, answer) in writes.iter().zip(&mut answers) {
        if answer.is_some() {
            continue;
        }
        if !alone {
            db.run("SAVEPOINT one").await.map_err(committing)?;
        }
        let applied = apply(db, server, write).await;
        match &applied {
            Err(error) if error.fault() != Fault::Refused => return Err(committing_of(applied)),
            // Alone it needs no savepoint: its refusal rolls the whole transaction back.
            Err(_) if alone => {
                db.run("ROLLBACK").await.map_err(committing)?;
                return Ok((vec![applied], None));
            }
            Err(_) => db.run("ROLLBACK TO one; RELEASE one").await.map_err(committing)?,
            Ok(_) if !alone => db.run("RELEASE one").await.map_err(committing)?,
            Ok(_) => {}
        }
        *answer = Some(applied);
    }
    let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.unwrap_or(Ok(0))).collect();
    let mut told = Told::new(server);
    writes.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).for_each(|(write, _)| told.add(write));
    let number = link.announce(server, &told).await.map_err(committing)?;
    Ok((answers, Some(Group { number })))
}

fn committing_of(answer: Answer) -> StoreError {
    answer.err().unwrap_or(StoreError::Stopped)
}

fn committing(source: sqlx::Error) -> StoreError {
    StoreError::Commit { source }
}

/// What a write that is on the disk changes for those here.
fn note(wakers: &Wakers, server: &watch::Sender<String>, write: Write) {
    match write {
        Write::Commit(Commit { turn, events, .. })
        | Write::EndUnsettled { commit: Commit { turn, events, .. }, .. }
        | Write::StartTurn(NewTurn { id: turn, events, .. })
            if !events.is_empty() =>
        {
            wakers.hand_over(&turn, events);
        }
        Write::RegisterServer { server: name } => {
            server.send_replace(name);
        }
        _ => {}
    }
}

/// One fault, told to everybody in the group.
fn again(error: &StoreError, is_remote: bool) -> StoreError {
    let fault = error.fault();
    match (fault, error.database()) {
        _ if error.is_full() => StoreError::Full,
        (_, Some(source)) if matches!(error, StoreError::InDoubt { .. }) => {
            StoreError::InDoubt { source: sqlx::Error::Protocol(source.to_string()) }
        }
        (Fault::Lost | Fault::Contention, Some(source)) if is_remote => {
            StoreError::Lost { why: source.to_string() }
        }
        (_, Some(source)) => StoreError::Commit { source: sqlx::Error::Protocol(source.to_string()) },
        (_, None) => StoreError::Commit { source: sqlx::Error::Protocol(error.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_that_nothing_was_written_when_that_is_not_known() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into());
        let told = again(&StoreError::InDoubt { source: lost() }, true);
        assert!(matches!(told, StoreError::InDoubt { .. }), "{told:?}");
        assert_eq!(palisade_protocol::Error::from(told).code, "store.in_doubt");
        assert!(matches!(again(&StoreError::Commit { source: lost() }, true), StoreError::Lost { .. }));
    }
}

//! The task that attends one sandbox: hands replies to whoever waits for them, and when the sandbox is to end,
//! or has ended, sees to it that everything is gone.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use palisade_hand_protocol::{Identity, Reply, Request, status_is_valid};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cgroup::SandboxGroup;
use crate::control::{Control, Received, watch};
use crate::mark::ProcessMark;
use crate::note::{self, Note, Notes};
use crate::spawner::Monitor;
use crate::{RunExit, SandboxError};

/// News of one call that can be waiting: it is started (or refused) and it ends.
const NEWS_MAX: usize = 2;
/// Status updates waiting for the runtime; newer ones are dropped while it is full.
pub(crate) const STATUS_UPDATES_MAX: usize = 256;
/// The path of a background command's log, in bytes.
const LOG_PATH_BYTES_MAX: usize = 256;
/// How long the killed may take to be gone before the log is told.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// What the warden tells a waiting call.
#[derive(Debug)]
pub(crate) enum News {
    Started { pid: i32, log: Option<String> },
    Exited { code: Option<i32>, signal: Option<i32>, timed_out: bool },
    Refused(String),
    TurnEnded,
}

/// What the sandbox's handle and its warden share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) control: Control,
    /// Cancelled: the sandbox is to end.
    pub(crate) stop: CancellationToken,
    /// Cancelled: it takes no more calls.
    pub(crate) dead: CancellationToken,
    /// Cancelled: all its processes are gone and reaped.
    pub(crate) gone: CancellationToken,
    calls: Mutex<HashMap<u64, mpsc::Sender<News>>>,
    /// Background commands that run: their pids inside and their logs.
    background: Mutex<HashMap<u64, (i32, String)>>,
    pub(crate) notes: Notes,
    next_id: AtomicU64,
    death: OnceLock<String>,
    hand: OnceLock<OwnedFd>,
    group: Mutex<SandboxGroup>,
    /// The same for other servers of this machine.
    pub(crate) mark: OnceLock<ProcessMark>,
}

impl Shared {
    pub(crate) fn new(control: Control, group: SandboxGroup, stop: CancellationToken) -> Self {
        Self {
            control,
            stop,
            dead: CancellationToken::new(),
            gone: CancellationToken::new(),
            calls: Mutex::default(),
            background: Mutex::default(),
            notes: Notes::default(),
            next_id: AtomicU64::new(1),
            death: OnceLock::new(),
            hand: OnceLock::new(),
            group: Mutex::new(group),
            mark: OnceLock::new(),
        }
    }

    /// A new call's number and where its news will come.
    pub(crate) fn open_call(&self) -> Result<(u64, mpsc::Receiver<News>), SandboxError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (news, receiver) = mpsc::channel(NEWS_MAX);
        lock(&self.calls).insert(id, news);
        // Checked after the insert: the warden marks first and empties the map second.
        if self.dead.is_cancelled() {
            lock(&self.calls).remove(&id);
            return Err(self.died());
        }
        Ok((id, receiver))
    }

    pub(crate) fn close_call(&self, id: u64) {
        lock(&self.calls).remove(&id);
    }

    pub(crate) fn background_count(&self) -> usize {
        if self.dead.is_cancelled() { 0 } else { self.background_begun() }
    }

    /// Those that run, or that ran when the sandbox died.
    pub(crate) fn background_begun(&self) -> usize {
        lock(&self.background).len()
    }

    pub(crate) fn died(&self) -> SandboxError {
        SandboxError::Died(self.death.get().cloned().unwrap_or_else(|| "it was stopped".into()))
    }

    /// The sandbox is lost for this reason.
    pub(crate) fn condemn(&self, reason: &str) {
        let _ = self.death.set(reason.to_owned());
        self.stop.cancel();
    }

    /// Whether a process inside was killed for want of memory since this was last asked.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        lock(&self.group).was_out_of_memory()
    }

    /// SIGKILL to pid 1, which the kernel extends to all in its namespace; and to all in its control group, which
    /// also reaches what has no pid 1 yet.
    pub(crate) fn kill(&self) {
        lock(&self.group).kill();
        if let Some(hand) = self.hand.get() {
            // It may be dead already.
            let _ = pidfd_send_signal(hand, Signal::KILL);
        }
    }

    pub(crate) async fn request(
        &self,
        request: &Request,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), SandboxError> {
        match self.control.send(request, fds).await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(SandboxError::Spec(e.to_string())),
            Err(e) => {
                self.condemn(&format!("the control socket: {e}"));
                Err(self.died())
            }
        }
    }
}

/// A poisoned map is still a map: no code that holds these locks can leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the hand says when it is ready.
#[derive(Debug)]
pub(crate) struct SetUp {
    pub(crate) roots: Vec<Identity>,
    pub(crate) landlock_abi: u32,
    /// Whatever it passed out; a listener if it is honest.
    pub(crate) listener: Option<OwnedFd>,
}

/// What comes out of a sandbox besides the news of calls.
pub(crate) struct Outlets {
    pub(crate) ready: Option<oneshot::Sender<SetUp>>,
    pub(crate) status: mpsc::Sender<(String, String)>,
}

/// Attends until the sandbox is gone.
pub(crate) async fn attend(shared: std::sync::Arc<Shared>, mut monitor: Monitor, mut outlets: Outlets) {
    let reason = listen(&shared, &mut outlets).await;
    let _ = shared.death.set(reason);
    shared.dead.cancel();
    lock(&shared.calls).clear();
    shared.kill();
    if tokio::time::timeout(GONE_WITHIN, bury(&shared, &mut monitor)).await.is_err() {
        tracing::error!(pid = ?monitor.pid(), "a sandbox's processes are still there after SIGKILL");
    }
    let removing = shared.clone();
    // The groups are empty by now; the kernel may take a moment to see it.
    if let Err(e) = tokio::task::spawn_blocking(move || lock(&removing.group).remove()).await {
        tracing::warn!(error = %e, "a sandbox's control groups were not removed");
    }
    shared.gone.cancel();
}

/// Hands out what the hand says; the answer is why it ended.
async fn listen(shared: &Shared, outlets: &mut Outlets) -> String {
    let mut buffer = Vec::new();
    loop {
        let received = tokio::select! {
            () = shared.stop.cancelled() => return "it was stopped".into(),
            received = shared.control.receive(&mut buffer) => received,
        };
        match received {
            Ok(Some(received)) => {
                if let Err(reason) = hand_out(shared, outlets, received) {
                    return reason;
                }
            }
            Ok(None) => return "its first process ended".into(),
            Err(e) => return format!("its control socket: {e}"),
        }
    }
}

fn hand_out(shared: &Shared, outlets: &mut Outlets, received: Received) -> Result<(), String> {
    let Received { reply, sender, fd } = received;
    let (id, news) = match reply {
        Reply::Ready { landlock_abi, roots } => {
            let sender = sender.ok_or("the kernel named no sender")?;
            let hand =
                pidfd_open(sender, PidfdFlags::NONBLOCK).map_err(|e| format!("its first process: {e}"))?;
            let _ = shared.hand.set(hand);
            if let Ok(mark) = ProcessMark::of(sender) {
                let _ = shared.mark.set(mark);
            }
            if let Some(ready) = outlets.ready.take() {
                let _ = ready.send(SetUp { roots, landlock_abi, listener: fd });
            }
            return Ok(());
        }
        Reply::Status { key, value } => {
            if status_is_valid(&key, &value) && outlets.status.try_send((key, value)).is_err() {
                tracing::debug!("a status update was dropped: too many are waiting");
            }
            return Ok(());
        }
        Reply::Started { id, pid, log } => {
            // Here and not where the call waits: it may end before that has heard of its start.
            if let (Some(log), true) = (&log, lock(&shared.calls).contains_key(&id)) {
                let log = log[..log.floor_char_boundary(LOG_PATH_BYTES_MAX)].to_owned();
                lock(&shared.background).insert(id, (pid, log));
            }
            (id, News::Started { pid, log })
        }
        Reply::Refused { id, message } => (id, News::Refused(message)),
        Reply::TurnEnded { id } => (id, News::TurnEnded),
        Reply::Exited { id, code, signal, timed_out, left } => {
            match lock(&shared.background).remove(&id) {
                Some((pid, log)) => {
                    let exit = code.map(RunExit::Code).or(signal.map(RunExit::Signal));
                    let (exit, tail) = (exit.unwrap_or(RunExit::Signal(0)), note::tail(&left.tail));
                    shared.notes.add(Note::Background { pid, exit, log, tail });
                }
                None if !timed_out => shared.notes.add_left(left),
                None => {}
            }
            (id, News::Exited { code, signal, timed_out })
        }
    };
    if let Some(call) = lock(&shared.calls).get(&id) {
        // Full only if the hand says more than it may; then the surplus is not missed.
        let _ = call.try_send(news);
    }
    Ok(())
}

/// Waits until pid 1 is dead, which the kernel allows only after everything else in its namespace is, and
/// reaps the process we started.
async fn bury(shared: &Shared, monitor: &mut Monitor) {
    if let Some(hand) = shared.hand.get().and_then(|hand| hand.try_clone().ok()) {
        ended(hand).await;
    }
    monitor.kill();
    if let Some(pidfd) = monitor.pid().and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok()) {
        ended(pidfd).await;
    }
    if let Err(e) = monitor.reap() {
        tracing::warn!(error = %e, "could not reap a sandbox's first process");
    }
}

async fn ended(pidfd: OwnedFd) {
    // A pidfd is readable once its process has ended. Without the watch there is nothing to wait on.
    if let Ok(process) = watch(pidfd, Interest::READABLE) {
        let _ = process.readable().await;
    }
}

#[cfg(test)]
#[path = "warden_tests.rs"]
mod tests;

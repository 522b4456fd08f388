//! The one thread that starts sandboxes, and that never ends while one of them may live.
//!
//! The kernel ties `--die-with-parent` to the *thread* that forked: started from a pool thread that is later
//! retired, every sandbox of it would be killed. So all are started here.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};

use palisade_hand_protocol::LAUNCH_ARG;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::oneshot;

/// Starts waiting at once; a caller beyond them waits for a place.
const QUEUE_MAX: usize = 64;

/// What one launcher is started with. Its three standard descriptors are its whole inheritance.
pub(crate) struct Launch {
    pub(crate) hand: PathBuf,
    /// Becomes stdin.
    pub(crate) control: OwnedFd,
    /// Becomes stdout's descriptor.
    pub(crate) spec: OwnedFd,
    /// Becomes stderr.
    pub(crate) errors: OwnedFd,
}

type Job = (Launch, oneshot::Sender<io::Result<Monitor>>);

/// A handle on the thread; it ends with the last handle.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    jobs: SyncSender<Job>,
}

impl Spawner {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE_MAX);
        std::thread::Builder::new().name("sandbox-spawner".into()).spawn(move || {
            for (launch, answer) in queue {
                if let Err(Ok(mut monitor)) = answer.send(spawn(launch).map(Monitor)) {
                    // Nobody waits for it any more.
                    monitor.kill();
                    let _ = monitor.0.wait();
                }
            }
        })?;
        Ok(Self { jobs })
    }

    pub(crate) async fn spawn(&self, launch: Launch) -> io::Result<Monitor> {
        let (answer, child) = oneshot::channel();
        let mut job = (launch, answer);
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(std::sync::mpsc::TrySendError::Full(back)) => job = back,
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(gone()),
            }
            // The queue is full only while dozens start at once, each for a millisecond.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        child.await.map_err(|_| gone())?
    }
}

/// The process that we started: the launcher, then bubblewrap, which waits for pid 1. Killed when dropped,
/// whatever happened.
#[derive(Debug)]
pub(crate) struct Monitor(Child);

impl Monitor {
    /// SIGKILL to it and to what it has not set free yet.
    pub(crate) fn kill(&mut self) {
        // While it is not reaped its pid, and so the group's number, cannot belong to anybody else.
        if let (Ok(None), Some(pid)) = (self.0.try_wait(), self.pid()) {
            // It may be dying already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Takes its exit status, if it has ended.
    pub(crate) fn reap(&mut self) -> io::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if matches!(self.reap(), Ok(false)) {
            self.kill();
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts sandboxes has ended")
}

fn spawn(launch: Launch) -> io::Result<Child> {
    Command::new(&launch.hand)
        .arg(LAUNCH_ARG)
        .env_clear()
        .current_dir("/")
        // A group of its own, so that a start can be ended as a whole while bubblewrap's two halves still wait
        // for each other and neither death signal nor pid 1 is there yet.
        .process_group(0)
        .stdin(launch.control)
        .stdout(launch.spec)
        .stderr(Stdio::from(launch.errors))
        .spawn()
}

//! Pid 1 of a sandbox: takes requests, starts calls, ends them at their deadline, reaps everything.
//!
//! It must never block on anything that a process inside controls, and nothing inside may look into it: it is
//! not dumpable, so that /proc/1 is closed to the agent although the uid is the same. When the control socket
//! closes it ends, and the kernel ends everything else in the namespace with it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use palisade_hand_protocol::{
    BACKGROUND_LOGS_NAME, CALLS_RUNNING_MAX, HOME_INSIDE, Identity, LEFT_NAMED_MAX, Left, PROXY_INSIDE,
    Reply, Request, RootInside, TERM_GRACE_MS,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};

use crate::control::{Control, Received};
use crate::process::{self, Process, Surroundings};
use crate::status::StatusBoard;
use crate::{landlock, sys};

/// How long what a command started may take to follow it, before it is ended: `>(tee log)` writes its last line then.
const FOLLOW_MS: u64 = 100;
/// How long the end of a turn waits for the killed to be gone.
const END_TURN_MS: u64 = 2_000;
/// Connections to the proxy that wait to be taken.
const PROXY_BACKLOG: i32 = 128;
/// What may be written in every sandbox.
const ALWAYS_WRITABLE: [&str; 3] = [HOME_INSIDE, "/tmp", "/dev/shm"];

/// One running call.
struct Call {
    id: u64,
    /// Its first process, and the number of its session.
    leader: Pid,
    background: bool,
    deadline: Option<Instant>,
    /// SIGTERM was sent at the deadline.
    timed_out: bool,
    /// Where a background command's output goes.
    log: Option<File>,
    /// How it ended, while what it started may still follow it.
    ended: Option<WaitStatus>,
}

impl Call {
    fn session(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }
}

/// A call's first process, and its log for one in the background.
type Spawned = (Pid, Option<(File, String)>);

struct Init {
    control: Control,
    children: OwnedFd,
    status: StatusBoard,
    calls: Vec<Call>,
    surroundings: Surroundings,
    /// Processes of no call that the server was told of.
    adrift: Vec<Pid>,
    ready: bool,
}

/// Runs until the server goes away.
pub(crate) fn run() -> Result<(), String> {
    let mut init = Init::start()?;
    while init.wait_and_act()? {}
    Ok(())
}

impl Init {
    fn start() -> Result<Self, String> {
        use rustix::process::{set_dumpable_behavior, set_parent_process_death_signal};
        sys::close_from(3).map_err(|e| format!("close descriptors: {e}"))?;
        // Opened first: what /proc has of a process that is not dumpable belongs to root.
        let surroundings = Surroundings::open().map_err(|e| format!("open the own OOM score: {e}"))?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("close /proc/1: {e}"))?;
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| format!("set the death signal: {e}"))?;
        let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
            .map_err(|e| format!("take the control socket: {e}"))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| format!("open /dev/null: {e}"))?;
        rustix::stdio::dup2_stdin(&null).map_err(|e| format!("replace stdin: {e}"))?;
        rustix::stdio::dup2_stdout(&null).map_err(|e| format!("replace stdout: {e}"))?;
        Ok(Self {
            control: Control::new(control),
            children: sys::sigchld_fd().map_err(|e| format!("watch children: {e}"))?,
            status: StatusBoard::open()?,
            calls: Vec::new(),
            surroundings,
            adrift: Vec::new(),
            ready: false,
        })
    }

    /// One round; `false` when the server is gone.
    fn wait_and_act(&mut self) -> Result<bool, String> {
        let (asked, ended, told) = self.wait()?;
        if told {
            self.status.receive();
        }
        if ended {
            self.reap()?;
        }
        if asked {
            match self.control.receive()? {
                Received::Closed => return Ok(false),
                Received::Nothing => {}
                Received::Request(request, fds) => self.answer(request, fds)?,
            }
        }
        self.enforce_deadlines();
        self.finish_ended()?;
        if self.status.due().is_some_and(|due| due <= Instant::now()) {
            self.pass_on_status()?;
        }
        Ok(true)
    }

    fn wait(&self) -> Result<(bool, bool, bool), String> {
        let next = self.calls.iter().filter_map(|call| call.deadline).chain(self.status.due()).min();
        // Rounded up, so that a wait never ends just before its deadline.
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = timeout.and_then(|wait| Timespec::try_from(wait).ok());
        let mut fds = [&self.control.as_fd(), &self.children.as_fd(), &self.status.socket.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => Ok((false, false, false)),
            Err(e) => Err(format!("poll: {e}")),
            Ok(_) => {
                Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty(), !fds[2].revents().is_empty()))
            }
        }
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<(), String> {
        match request {
            Request::Setup { env, roots, rlimits, listen } => {
                self.surroundings.rlimits = rlimits;
                self.set_up(env, &roots, listen)
            }
            Request::Run { id, timeout_ms, background } => {
                self.start_call(id, timeout_ms, background, |init| {
                    let mut fds = fds.into_iter();
                    let text = fds.next().ok_or("no command came with the request")?;
                    let log = background.then(open_log).transpose()?;
                    let output = match &log {
                        Some((file, _)) => file.try_clone().map_err(|e| e.to_string())?.into(),
                        None => fds.next().ok_or("no output descriptor came with the command")?,
                    };
                    let leader = process::spawn_shell(text, output, &init.surroundings);
                    Ok((leader.map_err(|e| e.to_string())?, log))
                })
            }
            Request::File { id, timeout_ms } => self.start_call(id, Some(timeout_ms), false, |init| {
                let (Some(request), Some(result)) = (fds.first(), second(&fds)) else {
                    return Err("a file operation needs two descriptors".into());
                };
                let request = request.try_clone().map_err(|e| e.to_string())?;
                let pid = process::spawn_file_op(request, result?, &init.surroundings)
                    .map_err(|e| e.to_string())?;
                Ok((pid, None))
            }),
            Request::Kill { id } => {
                if let Some(call) = self.calls.iter().find(|call| call.id == id) {
                    let session = call.leader.as_raw_nonzero().get();
                    process::kill_all(|p| p.session == session);
                }
                Ok(())
            }
            Request::EndTurn { id } => self.end_turn(id),
        }
    }

    fn set_up(
        &mut self,
        env: Vec<(String, String)>,
        roots: &[RootInside],
        listen: bool,
    ) -> Result<(), String> {
        // Before anything of the agent's runs, so that nobody can have taken the address.
        let listener = listen.then(listen_for_proxy).transpose()?;
        let identity = |RootInside { path, .. }: &RootInside| {
            let stat = rustix::fs::stat(path).map_err(|e| format!("stat {path}: {e}"))?;
            Ok(Identity { dev: stat.st_dev, ino: stat.st_ino })
        };
        let writable = roots.iter().filter(|root| root.writable).map(|root| root.path.as_str());
        let landlock_abi = landlock::restrict(&writable.chain(ALWAYS_WRITABLE).collect::<Vec<_>>())?;
        let roots = roots.iter().map(identity).collect::<Result<_, String>>()?;
        (self.surroundings.env, self.ready) = (env, true);
        // From here on nobody reads our errors: the control socket's end says that we failed.
        rustix::stdio::dup2_stderr(rustix::stdio::stdout()).map_err(|e| format!("replace stderr: {e}"))?;
        // Passed out and let go: in here nobody can take from it, and it lives for as long as the server wants.
        self.control.send_with(&Reply::Ready { landlock_abi, roots }, listener.as_ref().map(AsFd::as_fd))
    }

    fn start_call(
        &mut self,
        id: u64,
        timeout_ms: Option<u64>,
        background: bool,
        spawn: impl FnOnce(&Self) -> Result<Spawned, String>,
    ) -> Result<(), String> {
        let started = if !self.ready {
            Err("the sandbox is not set up yet".to_owned())
        } else if self.calls.len() >= CALLS_RUNNING_MAX {
            Err(format!("{CALLS_RUNNING_MAX} commands are running; end one of them first"))
        } else {
            spawn(self)
        };
        match started {
            Err(message) => self.control.send(&Reply::Refused { id, message }),
            Ok((leader, log)) => {
                let (log, path) = log.unzip();
                let deadline = timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
                self.calls.push(Call {
                    id,
                    leader,
                    background,
                    deadline,
                    timed_out: false,
                    log,
                    ended: None,
                });
                self.control.send(&Reply::Started { id, pid: leader.as_raw_nonzero().get(), log: path })
            }
        }
    }

    fn enforce_deadlines(&mut self) {
        let now = Instant::now();
        let is_due = |call: &&mut Call| call.ended.is_none() && call.deadline.is_some_and(|at| at <= now);
        for call in self.calls.iter_mut().filter(is_due) {
            if call.timed_out {
                call.deadline = None;
                let session = call.session();
                process::kill_all(|p| p.session == session);
            } else {
                call.timed_out = true;
                call.deadline = Some(now + Duration::from_millis(TERM_GRACE_MS));
                process::signal_session(call.leader, Signal::TERM);
            }
        }
    }

    /// Takes every dead child: calls, and orphans that were handed to us.
    fn reap(&mut self) -> Result<(), String> {
        // The descriptor holds one pending signal however many children died; its content says nothing.
        let _ = rustix::io::read(&self.children, &mut [0_u8; 128][..]);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(call) = self.calls.iter_mut().find(|call| call.leader == pid) {
                call.ended = Some(status);
                call.deadline = Some(Instant::now() + Duration::from_millis(FOLLOW_MS));
            }
        }
        self.finish_ended()
    }

    /// Finishes the calls that have ended, once all that they started has followed or had its time.
    fn finish_ended(&mut self) -> Result<(), String> {
        if self.calls.iter().all(|call| call.ended.is_none()) {
            return Ok(());
        }
        let (alive, now) = (process::alive(), Instant::now());
        let is_over = |call: &Call| {
            let follows = |p: &Process| p.session == call.session();
            call.ended.is_some()
                && (call.timed_out || call.deadline.is_none_or(|at| at <= now) || !alive.iter().any(follows))
        };
        while let Some(at) = self.calls.iter().position(is_over) {
            // Known as a call for as long as it is asked whose the processes are.
            let left = self.left_by(at, &alive);
            let call = self.calls.swap_remove(at);
            if let Some(status) = call.ended {
                self.finish(&call, status, left)?;
            }
        }
        Ok(())
    }

    /// What the server is told of the processes that a call leaves.
    fn left_by(&mut self, at: usize, alive: &[Process]) -> Left {
        let call = &self.calls[at];
        let named = |who: &[&Process]| who.iter().take(LEFT_NAMED_MAX).map(|p| p.name.clone()).collect();
        let ended: Vec<_> = alive.iter().filter(|p| p.session == call.session()).collect();
        let is_adrift = |p: &&Process| !self.calls.iter().any(|call| call.session() == p.session);
        let adrift: Vec<_> = alive.iter().filter(is_adrift).collect();
        let new: Vec<_> = adrift.iter().copied().filter(|p| !self.adrift.contains(&p.pid)).collect();
        let left = Left {
            ended: named(&ended),
            adrift: named(&new),
            tail: call.log.as_ref().map(process::tail).unwrap_or_default(),
        };
        self.adrift = adrift.iter().map(|p| p.pid).collect();
        left
    }

    fn finish(&mut self, call: &Call, status: WaitStatus, left: Left) -> Result<(), String> {
        let session = call.session();
        process::kill_all(|p| p.session == session);
        // Before the end is told, so that a status set last by a command is known when the command is over.
        self.status.receive();
        self.pass_on_status()?;
        self.control.send(&Reply::Exited {
            id: call.id,
            code: status.exit_status(),
            signal: status.terminating_signal(),
            timed_out: call.timed_out,
            left,
        })
    }

    fn end_turn(&mut self, id: u64) -> Result<(), String> {
        let until = Instant::now() + Duration::from_millis(END_TURN_MS);
        let kept: Vec<i32> = self.calls.iter().filter(|c| c.background).map(Call::session).collect();
        let doomed = |p: &Process| !kept.contains(&p.session);
        loop {
            if kept.is_empty() {
                sys::kill_everything_else();
            } else {
                process::kill_all(doomed);
            }
            self.reap()?;
            if !process::list().iter().any(doomed) || Instant::now() >= until {
                return self.control.send(&Reply::TurnEnded { id });
            }
            let mut children = [PollFd::new(&self.children, PollFlags::IN)];
            let tick = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            poll(&mut children, Some(&tick)).map_err(|e| format!("poll: {e}"))?;
        }
    }

    fn pass_on_status(&mut self) -> Result<(), String> {
        for (key, value) in self.status.take() {
            self.control.send(&Reply::Status { key, value })?;
        }
        Ok(())
    }
}

/// Makes the one way out, whose other side is the server's.
fn listen_for_proxy() -> Result<OwnedFd, String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let make = || -> rustix::io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &PROXY_INSIDE)?;
        listen(&socket, PROXY_BACKLOG)?;
        Ok(socket)
    };
    make().map_err(|e| format!("listen at {PROXY_INSIDE}: {e}"))
}

fn open_log() -> Result<(File, String), String> {
    let folder = Path::new(HOME_INSIDE).join(BACKGROUND_LOGS_NAME);
    process::open_log(&folder).map_err(|e| format!("open a log for the background command: {e}"))
}

fn second(fds: &[OwnedFd]) -> Option<Result<OwnedFd, String>> {
    fds.get(1).map(|fd| fd.try_clone().map_err(|e| e.to_string()))
}

//! One living sandbox: run a command in it, carry out a file operation, end it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_beneath::Root;
use palisade_hand_protocol::{
    COMMAND_BYTES_MAX, FILE_OP_BYTES_MAX, FILE_RESULT_BYTES_MAX, FILE_RESULT_TEXT_BYTES_MAX, FileOp,
    FileResult, Identity, Request, TERM_GRACE_MS,
};
use palisade_protocol::ToolOutput;
use palisade_protocol::limits::{BASH_TIMEOUT_MAX_MS, TOOL_OUTPUT_BYTES_MAX};
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::DropGuard;

use crate::control::Control;
use crate::plan::RootMount;
use crate::probe::hint_for;
use crate::spawner::Launch;
use crate::warden::{News, Outlets, STATUS_UPDATES_MAX, SetUp, Shared, attend};
use crate::{Note, ProcessMark, SandboxError, SandboxFactory, SandboxSpec};

/// From the start to the hand's word that it is ready, in milliseconds.
const START_MS_MAX: u64 = 10_000;
/// A file operation, in milliseconds.
const FILE_OP_MS_MAX: u64 = 30_000;
/// What the hand may take beyond a call's own time before the sandbox counts as lost.
const RESPONSE_SLACK: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
const CODE_OF_SIGKILL: i32 = 128 + SIGKILL;
/// After a command has ended, for output that something it left behind still holds back.
const DRAIN: Duration = Duration::from_millis(100);
/// What a pipe holds at most, in bytes: the kernel lets an unprivileged user make it no larger.
const PIPE_BYTES_MAX: usize = 1024 * 1024;
/// One read of a command's output, in bytes.
const OUTPUT_CHUNK_BYTES: usize = 64 * 1024;
/// Output of one command that is read as fast as it comes, in bytes; then at one read for each pause.
const OUTPUT_AT_ONCE_BYTES: usize = 16 * 1024 * 1024;
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// What is kept of the launcher's complaints, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 4096;
/// For the last of them to go.
const COMPLAINT_WAIT: Duration = Duration::from_secs(5);

const _: () =
    assert!(FILE_RESULT_TEXT_BYTES_MAX <= TOOL_OUTPUT_BYTES_MAX, "a file result fits a tool result");

/// A command for bash, in a fresh shell in the workspace.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// At most [`COMMAND_BYTES_MAX`] bytes.
    pub command: String,
    /// Capped at [`BASH_TIMEOUT_MAX_MS`]; of no meaning for a background command.
    pub timeout_ms: u64,
    /// Return at once and let it run until the sandbox ends.
    pub background: bool,
}

/// How a command came out. Its output went to the caller as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunExit {
    /// It ended by itself with this exit code.
    Code(i32),
    /// A signal ended it that we did not send for the deadline.
    Signal(i32),
    /// The kernel ended it, or something it had started, because the sandbox had no memory left.
    OutOfMemory,
    /// Its time was over: SIGTERM, 2 seconds' grace, SIGKILL.
    TimedOut,
    /// It runs on.
    Background {
        /// Its pid inside, for `kill`.
        pid: i32,
        /// Where its output goes, as a path inside.
        log: String,
    },
}

/// One sandbox. All methods may be called at once from several tasks. Dropping it kills everything inside.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    workspace: std::path::PathBuf,
    roots: Vec<(RootMount, Identity)>,
    landlock_abi: u32,
    status: Mutex<Option<mpsc::Receiver<(String, String)>>>,
    listener: Mutex<Option<std::net::TcpListener>>,
    /// Ends the sandbox with its handle.
    _stop: DropGuard,
    /// The spawning thread must outlive the sandbox, or the kernel ends both.
    _factory: SandboxFactory,
}

impl Sandbox {
    pub(crate) async fn start(factory: &SandboxFactory, spec: SandboxSpec) -> Result<Self, SandboxError> {
        let inner = &factory.inner;
        let env = spec.environment(inner.lang)?;
        let (cgroups, limits) = (inner.config.cgroups.clone(), inner.config.limits);
        // Off the executor: it takes a lock that all of the machine's groups share.
        let tenant = spec.tenant.clone();
        let group = tokio::task::spawn_blocking(move || cgroups.make(&tenant, &limits)).await;
        let group = group
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(SandboxError::at("making the control groups"))?;
        let launch = spec.launch_spec(&inner.config, group.procs())?;
        let setup = Request::Setup {
            env,
            roots: spec.roots_inside()?,
            rlimits: inner.config.rlimits(),
            listen: spec.proxy.is_some(),
        };
        let launch = serde_json::to_vec(&launch).map_err(|e| SandboxError::Spec(e.to_string()))?;
        let launch = memory_file("launch", &launch).map_err(SandboxError::at("writing the specification"))?;
        let (control, theirs) = Control::pair().map_err(SandboxError::at("making a control socket"))?;
        let (complaints, errors) = std::io::pipe().map_err(SandboxError::at("making a pipe"))?;
        let hand = inner.config.hand.clone();
        let job = Launch { hand, control: theirs, spec: launch.into(), errors: errors.into() };
        let monitor = inner.spawner.spawn(job).await.map_err(SandboxError::at("starting the launcher"))?;

        let shared = Arc::new(Shared::new(control, group, inner.stop.child_token()));
        let stop = shared.stop.clone().drop_guard();
        let (ready, is_ready) = oneshot::channel();
        let (status, updates) = mpsc::channel(STATUS_UPDATES_MAX);
        inner.wardens.spawn(attend(shared.clone(), monitor, Outlets { ready: Some(ready), status }));

        let limit = Duration::from_millis(START_MS_MAX);
        let set_up = timeout(limit, async {
            shared.request(&setup, &[]).await?;
            is_ready.await.map_err(|_| shared.died())
        });
        let SetUp { roots, landlock_abi, listener } = match set_up.await {
            Ok(Ok(set_up)) => set_up,
            Ok(Err(SandboxError::Died(reason))) => {
                return Err(why_not_started(&shared, complaints.into(), reason).await);
            }
            Ok(Err(other)) => return Err(other),
            Err(_) => return Err(SandboxError::StartTimeout(START_MS_MAX)),
        };
        let listener = spec.proxy.is_some().then(|| crate::listener::check(listener)).transpose()?;
        Ok(Self {
            shared,
            listener: Mutex::new(listener),
            roots: spec.mounts().into_iter().zip(roots).collect(),
            landlock_abi,
            workspace: spec.workspace,
            status: Mutex::new(Some(updates)),
            _stop: stop,
            _factory: factory.clone(),
        })
    }

    /// Names its first process to other servers of this machine.
    pub fn mark(&self) -> Option<&ProcessMark> {
        self.shared.mark.get()
    }

    /// The version of the kernel's Landlock that its files are behind as well as behind mounts; 0 for none.
    pub fn landlock_abi(&self) -> u32 {
        self.landlock_abi
    }

    /// Runs a command and gives `output` its stdout and stderr, merged, as they come. Returns when the command
    /// has *ended*, even when something it started still holds its output open; that something is killed.
    /// Dropping the future kills the command.
    pub async fn run(
        &self,
        request: RunRequest,
        mut output: impl FnMut(&[u8]) + Send,
    ) -> Result<RunExit, SandboxError> {
        check_command(&request.command)?;
        let text = memory_file("command", request.command.as_bytes())
            .map_err(SandboxError::at("passing a command"))?;
        let (reader, writer) = std::io::pipe().map_err(SandboxError::at("making a pipe"))?;
        let timeout_ms = request.timeout_ms.min(BASH_TIMEOUT_MAX_MS);
        let mut call = self.open_call()?;
        let limit = (!request.background).then_some(timeout_ms);
        let run = Request::Run { id: call.id, timeout_ms: limit, background: request.background };
        self.shared.request(&run, &[text.as_fd(), writer.as_fd()]).await?;
        drop(writer);
        let (pid, log) = call.started().await?;
        if let (true, Some(log)) = (request.background, log) {
            call.release();
            return Ok(RunExit::Background { pid, log });
        }
        let reader = OwnedFd::from(reader);
        let mut reader =
            pipe::Receiver::from_owned_fd(reader).map_err(SandboxError::at("reading the output"))?;
        let mut buffer = vec![0; OUTPUT_CHUNK_BYTES];
        let until = Instant::now() + Duration::from_millis(timeout_ms + TERM_GRACE_MS) + RESPONSE_SLACK;
        let (mut open, mut taken) = (true, 0);
        let exit = loop {
            tokio::select! {
                exit = call.exited(until) => break exit?,
                count = reader.read(&mut buffer), if open => match count {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) => {
                        output(&buffer[..count]);
                        taken += count;
                        if taken > OUTPUT_AT_ONCE_BYTES {
                            // A flood is read no faster than this, so that it costs its own processor and not ours.
                            tokio::time::sleep(FLOOD_PAUSE).await;
                        }
                    }
                },
            }
        };
        call.release();
        let exit = match exit {
            // Killed itself, or the shell tells of a child that was.
            RunExit::Signal(SIGKILL) | RunExit::Code(CODE_OF_SIGKILL) if self.shared.was_out_of_memory() => {
                RunExit::OutOfMemory
            }
            other => other,
        };
        // What was written before the end is in the pipe and is taken, however late a busy machine lets us come to it.
        // What something left behind adds to it is waited for only so long.
        let (drained, mut in_pipe) = (Instant::now() + DRAIN, PIPE_BYTES_MAX);
        while open {
            match timeout_at(drained, reader.read(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 && (in_pipe > 0 || Instant::now() < drained) => {
                    output(&buffer[..count]);
                    in_pipe = in_pipe.saturating_sub(count);
                }
                _ => open = false,
            }
        }
        Ok(exit)
    }

    /// Carries out a file tool inside, in the same mounts that commands see. What the tool has to say against
    /// it, a missing file or a deadline, is a [`ToolOutput`] with `is_error`.
    pub async fn file(&self, operation: FileOp) -> Result<ToolOutput, SandboxError> {
        let text = serde_json::to_vec(&operation).map_err(|e| SandboxError::Spec(e.to_string()))?;
        if text.len() as u64 > FILE_OP_BYTES_MAX {
            return Ok(ToolOutput::error("tool.input_too_large", "The content is too large for one call."));
        }
        let request = memory_file("file-op", &text).map_err(SandboxError::at("passing a file operation"))?;
        let result = memory_file("file-result", b"").map_err(SandboxError::at("passing a file operation"))?;
        let mut call = self.open_call()?;
        let file = Request::File { id: call.id, timeout_ms: FILE_OP_MS_MAX };
        self.shared.request(&file, &[request.as_fd(), result.as_fd()]).await?;
        call.started().await?;
        let until = Instant::now() + Duration::from_millis(FILE_OP_MS_MAX + TERM_GRACE_MS) + RESPONSE_SLACK;
        let exit = call.exited(until).await?;
        call.release();
        Ok(match exit {
            RunExit::Code(0) => read_result(&result),
            RunExit::TimedOut => {
                let seconds = FILE_OP_MS_MAX / 1000;
                ToolOutput::error(
                    "tool.timeout",
                    format!("The call did not finish within {seconds} seconds."),
                )
            }
            other => {
                ToolOutput::error("tool.failed", format!("The call failed inside the sandbox ({other:?})."))
            }
        })
    }

    /// Kills everything inside but declared background commands: the end of a turn.
    pub async fn end_turn(&self) -> Result<(), SandboxError> {
        let mut call = self.open_call()?;
        self.shared.request(&Request::EndTurn { id: call.id }, &[]).await?;
        match call.next(Instant::now() + RESPONSE_SLACK).await? {
            News::TurnEnded => {}
            other => self.shared.condemn(&format!("it answered the end of a turn with {other:?}")),
        }
        call.release();
        Ok(())
    }

    /// Whether a scope root on the disk is no longer what is mounted (renamed, removed, replaced): then end this
    /// sandbox and start another before the next call (decision 20).
    pub fn is_stale(&self) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Ok(workspace) = Root::open(&self.workspace) else { return true };
        let as_mounted = |(root, identity): &(RootMount, Identity)| {
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(root.path.as_bytes()));
            let stat = workspace.mount_source(path).and_then(|fd| Ok(fstat(fd)?));
            stat.is_ok_and(|stat| Identity { dev: stat.st_dev, ino: stat.st_ino } == *identity)
        };
        !self.roots.iter().all(as_mounted)
    }

    /// Background commands that this one took with it when it died, or will take with it.
    pub fn background_lost(&self) -> usize {
        self.shared.background_begun()
    }

    /// Something that the next call is to be told.
    pub fn tell(&self, note: Note) {
        self.shared.notes.add(note);
    }

    /// What no call was told of yet; each is given once.
    pub fn take_notes(&self) -> Vec<Note> {
        self.shared.notes.take()
    }

    /// Declared background commands that still run; a sandbox with some is not idle.
    pub fn background_count(&self) -> usize {
        self.shared.background_count()
    }

    /// What programs inside say by `session-status key=value`, bounded and rate-limited; the first caller gets it.
    pub fn take_status_updates(&self) -> Option<mpsc::Receiver<(String, String)>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Where programs inside find the proxy, if the specification asked for one; the first caller gets it. Whoever holds it keeps
    /// the sandbox's network alive, so it must go when the sandbox does (decision 27).
    pub fn take_listener(&self) -> Option<std::net::TcpListener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it takes no more calls.
    pub fn is_dead(&self) -> bool {
        self.shared.dead.is_cancelled()
    }

    /// Resolves when it takes no more calls, however that came about.
    pub async fn died(&self) {
        self.shared.dead.cancelled().await;
    }

    /// Kills everything inside and waits until all of it is gone.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.kill();
        self.shared.gone.cancelled().await;
    }

    fn open_call(&self) -> Result<OpenCall, SandboxError> {
        let (id, news) = self.shared.open_call()?;
        Ok(OpenCall { shared: self.shared.clone(), id, news, held: true })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The warden does the same; this holds even where no runtime is left to run it.
        self.shared.kill();
    }
}

/// A call whose process dies with this value, unless it was released.
struct OpenCall {
    shared: Arc<Shared>,
    id: u64,
    news: mpsc::Receiver<News>,
    held: bool,
}

impl OpenCall {
    async fn started(&mut self) -> Result<(i32, Option<String>), SandboxError> {
        match self.next(Instant::now() + RESPONSE_SLACK).await? {
            News::Started { pid, log } => Ok((pid, log)),
            News::Refused(message) => {
                self.release();
                Err(SandboxError::Refused(message))
            }
            other => Err(self.nonsense(&other)),
        }
    }

    async fn exited(&mut self, until: Instant) -> Result<RunExit, SandboxError> {
        match self.next(until).await? {
            News::Exited { timed_out: true, .. } => Ok(RunExit::TimedOut),
            News::Exited { code: Some(code), .. } => Ok(RunExit::Code(code)),
            News::Exited { signal: Some(signal), .. } => Ok(RunExit::Signal(signal)),
            other => Err(self.nonsense(&other)),
        }
    }

    async fn next(&mut self, until: Instant) -> Result<News, SandboxError> {
        match timeout_at(until, self.news.recv()).await {
            Ok(Some(news)) => Ok(news),
            Ok(None) => Err(self.shared.died()),
            Err(_) => {
                self.shared.condemn("it did not answer in time");
                Err(self.shared.died())
            }
        }
    }

    fn nonsense(&self, news: &News) -> SandboxError {
        self.shared.condemn(&format!("it answered a call with {news:?}"));
        self.shared.died()
    }

    fn release(&mut self) {
        self.held = false;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.shared.close_call(self.id);
        if self.held && self.shared.control.try_send(&Request::Kill { id: self.id }).is_err() {
            self.shared.stop.cancel();
        }
    }
}

fn check_command(command: &str) -> Result<(), SandboxError> {
    if command.len() > COMMAND_BYTES_MAX {
        let message =
            format!("{} bytes; at most {COMMAND_BYTES_MAX} are possible, write a script file", command.len());
        return Err(SandboxError::Command(message));
    }
    if command.contains('\0') {
        return Err(SandboxError::Command("it contains a NUL character".into()));
    }
    Ok(())
}

fn memory_file(name: &str, content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(file)
}

/// The file is ours, but what stands in it was written inside: at most so much is read, and only text is taken.
fn read_result(file: &File) -> ToolOutput {
    let read = || -> io::Result<FileResult> {
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if size > FILE_RESULT_BYTES_MAX {
            return Err(io::Error::other("the result is over its limit"));
        }
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    match read() {
        Ok(result) if result.content.len() <= TOOL_OUTPUT_BYTES_MAX => {
            ToolOutput { content: result.content, is_error: result.is_error, code: result.code }
        }
        Ok(_) => ToolOutput::error("tool.failed", "The result is over its limit."),
        Err(e) => ToolOutput::error("tool.failed", format!("The call gave no result: {e}.")),
    }
}

/// Pieces the cause together from what the launcher and bubblewrap wrote. Their pipe ends when the last of them
/// is gone.
async fn why_not_started(shared: &Shared, complaints: OwnedFd, reason: String) -> SandboxError {
    shared.gone.cancelled().await;
    let mut text = Vec::new();
    if let Ok(pipe) = pipe::Receiver::from_owned_fd(complaints) {
        // What could be read in time is better than nothing.
        let _ = timeout(COMPLAINT_WAIT, pipe.take(COMPLAINT_BYTES_MAX).read_to_end(&mut text)).await;
    }
    let message = String::from_utf8_lossy(&text).trim().to_owned();
    let message = if message.is_empty() { reason } else { message };
    SandboxError::Start { hint: hint_for(&message), message }
}

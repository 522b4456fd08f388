//! Starting a call's process and ending whatever belongs to it.
//!
//! A call is a session of the kernel's (`setsid`), so that all it starts can be found again, whatever process
//! groups a shell makes of it. Only a process that calls `setsid` itself gets away, until the turn ends.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use palisade_hand_protocol::{
    BACKGROUND_TAIL_BYTES_MAX, CommandLimits, FILE_OP_ARG, HAND_INSIDE, OPEN_FILES_MAX, WORKSPACE_INSIDE,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use crate::sys;

/// Background logs of one session; more are refused.
const LOGS_MAX: u32 = 1_000;
/// Looks at /proc before a killer gives up on something that forks faster than it looks.
const LOOKS_MAX: u32 = 64;

/// What the shell is started with. The command comes on its standard input and is read before anything of it runs: in an
/// argument `pkill -f` would find it and end its own shell, and it could not be long. What the command then reads is empty.
const READ_COMMAND: &str = r#"eval "$(</dev/stdin)" </dev/null"#;

/// How much sooner than pid 1 the kernel is to end a command when memory runs out, in thousandths of it.
const OOM_SCORE_OVER_OURS: i32 = 500;

/// What every process is started with.
pub(crate) struct Surroundings {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) rlimits: Option<CommandLimits>,
    oom_score: OomScore,
}

impl Surroundings {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { env: Vec::new(), rlimits: None, oom_score: OomScore::open()? })
    }
}

/// Pid 1's own score, which children inherit: raised around each start, since nothing can change a child's between its
/// fork and its first instruction.
struct OomScore {
    file: File,
    ours: i32,
}

impl OomScore {
    fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/proc/self/oom_score_adj")?;
        let ours = io::read_to_string(&file)?.trim().parse().map_err(io::Error::other)?;
        Ok(Self { file, ours })
    }

    fn set(&self, score: i32) -> io::Result<()> {
        use std::io::Write;
        // The kernel takes each write as a whole, wherever the file's offset is.
        (&self.file).write_all(score.min(1000).to_string().as_bytes())
    }
}

/// A process, as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// The pid of its session's leader.
    pub(crate) session: i32,
    /// Dead already, waiting to be reaped.
    pub(crate) zombie: bool,
    /// What the kernel calls its program; it can give itself any.
    pub(crate) name: String,
}

/// A shell for the command in `text`, with both outputs into one descriptor.
pub(crate) fn spawn_shell(text: OwnedFd, output: OwnedFd, with: &Surroundings) -> io::Result<Pid> {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", READ_COMMAND, "bash"]).stdin(text).stderr(output.try_clone()?).stdout(output);
    spawn(command, with)
}

/// Ourselves, for one file operation.
pub(crate) fn spawn_file_op(request: OwnedFd, result: OwnedFd, with: &Surroundings) -> io::Result<Pid> {
    let mut command = Command::new(HAND_INSIDE);
    command.arg(FILE_OP_ARG).stdin(request).stdout(result).stderr(Stdio::null());
    spawn(command, with)
}

fn spawn(mut command: Command, with: &Surroundings) -> io::Result<Pid> {
    command
        .env_clear()
        .envs(with.env.iter().map(|(name, value)| (name, value)))
        .current_dir(WORKSPACE_INSIDE);
    let rlimits = with.rlimits;
    // Set in the child alone: pid 1 itself is not to run out of anything that commands use up.
    sys::in_own_session(&mut command, move || limit_self(rlimits));
    with.oom_score.set(with.oom_score.ours + OOM_SCORE_OVER_OURS)?;
    let spawned = command.spawn();
    with.oom_score.set(with.oom_score.ours)?;
    // Pid 1 reaps by wait(-1), so the child's handle has no use.
    let pid = spawned?.id();
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the kernel gave no pid"))
}

/// Between fork and exec: plain system calls only.
fn limit_self(rlimits: Option<CommandLimits>) -> io::Result<()> {
    let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::Nofile, OPEN_FILES_MAX)?;
    if let Some(CommandLimits { data_bytes, processes }) = rlimits {
        limit(Resource::Data, data_bytes)?;
        limit(Resource::Nproc, processes)?;
    }
    Ok(())
}

/// A new file for a background command's output, and its path.
pub(crate) fn open_log(folder: &Path) -> io::Result<(File, String)> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(folder)?;
    for number in 1..=LOGS_MAX {
        let path = folder.join(format!("{number}.log"));
        match File::options().read(true).append(true).create_new(true).mode(0o644).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return Ok((other?, path.to_string_lossy().into_owned())),
        }
    }
    Err(io::Error::other(format!(
        "{LOGS_MAX} background logs exist already; remove some of {}",
        folder.display()
    )))
}

/// The last bytes of a background command's log.
pub(crate) fn tail(log: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; BACKGROUND_TAIL_BYTES_MAX];
    let from = log.metadata().map_or(0, |file| file.len()).saturating_sub(bytes.len() as u64);
    // A log that cannot be read is told as one that says nothing.
    let count = log.read_at(&mut bytes, from).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// Everything alive in the sandbox but pid 1.
pub(crate) fn list() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != 1).filter_map(read_process).collect()
}

/// The same without those that are dead already.
pub(crate) fn alive() -> Vec<Process> {
    list().into_iter().filter(|process| !process.zombie).collect()
}

fn read_process(pid: i32) -> Option<Process> {
    parse_stat(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything, parentheses included: fields count from the last one.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (head, fields) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.chars().filter(|c| !c.is_control()).collect();
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    Some(Process { pid: Pid::from_raw(pid)?, session, zombie: matches!(state, "Z" | "X"), name })
}

/// One signal to every process of a session.
pub(crate) fn signal_session(session: Pid, signal: Signal) {
    for process in list().into_iter().filter(|p| p.session == session.as_raw_nonzero().get() && !p.zombie) {
        // It may have ended meanwhile.
        let _ = kill_process(process.pid, signal);
    }
}

/// SIGKILL to all that `doomed` picks, looking again until nothing new turns up.
pub(crate) fn kill_all(doomed: impl Fn(&Process) -> bool) {
    let mut killed = HashSet::new();
    for _ in 0..LOOKS_MAX {
        let fresh: Vec<_> =
            list().into_iter().filter(|p| !p.zombie && doomed(p) && !killed.contains(&p.pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for process in fresh {
            let _ = kill_process(process.pid, Signal::KILL);
            killed.insert(process.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let process = parse_stat(42, "42 (a) S 1 2 3) R 7 8 9 0 -1 4194304").unwrap();
        assert_eq!((process.session, process.zombie, process.name.as_str()), (9, false, "a) S 1 2 3"));
        assert!(parse_stat(42, "42 (x) Z 1 2 3 0").unwrap().zombie);
        assert!(parse_stat(42, "").is_none() && parse_stat(42, "42 (x) R 1").is_none());
    }
}

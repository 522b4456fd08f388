//! A sandbox's first process, written down so that another server of the same machine can end it: one that takes over
//! a session from a server that stands still.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;

use crate::control::watch;

/// How long the kernel may take to end what was in the sandbox.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Names one process of one boot of one machine; a number that was given out again is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessMark {
    machine: String,
    pid: i32,
    /// In clock ticks after the boot, as `/proc/<pid>/stat` has it (proc(5), field 22).
    started: u64,
}

impl ProcessMark {
    /// Of a process that lives.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        Ok(Self { machine: machine()?, pid, started: started(pid)? })
    }

    /// Its number, where this server is.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends the process, and with it everything in its namespace; returns when it is gone. Nothing happens where the
    /// process is gone already or is another machine's; whether it was there.
    pub async fn end(&self) -> io::Result<bool> {
        if machine()? != self.machine {
            return Ok(false);
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let process = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // After the process is held: the number cannot be given out again from here on.
        if started(self.pid).ok() != Some(self.started) {
            return Ok(false);
        }
        pidfd_send_signal(&process, Signal::KILL)?;
        let watched = watch(process, Interest::READABLE)?;
        match tokio::time::timeout(GONE_WITHIN, watched.readable()).await {
            Ok(ended) => ended.map(|_| true),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl fmt::Display for ProcessMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.machine, self.pid, self.started)
    }
}

impl FromStr for ProcessMark {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut words = text.split_ascii_whitespace();
        let mut word = || words.next().ok_or_else(wrong);
        Ok(Self {
            machine: word()?.to_owned(),
            pid: word()?.parse().map_err(|_| wrong())?,
            started: word()?.parse().map_err(|_| wrong())?,
        })
    }
}

/// Where a process's number means the same process: the boot of the machine, and the namespace of its processes.
fn machine() -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{}/{}", boot.trim_end(), pid_namespace()?))
}

/// Names the namespace that this process' numbers are of.
pub(crate) fn pid_namespace() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

/// When the process was started, in clock ticks after the boot.
pub(crate) fn started(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn mark(child: &std::process::Child) -> ProcessMark {
        ProcessMark::of(Pid::from_raw(child.id().cast_signed()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_marked_process_ends_and_no_other() {
        let (mut one, mut other) = (sleeper(), sleeper());
        let written = mark(&one).to_string();
        let read: ProcessMark = written.parse().unwrap();
        let later = ProcessMark { started: read.started + 1, ..read.clone() };
        assert!(!later.end().await.unwrap(), "another process with the same number");
        let elsewhere = ProcessMark { machine: "another".into(), ..read.clone() };
        assert!(!elsewhere.end().await.unwrap(), "another machine");
        assert!(read.end().await.unwrap());
        one.wait().unwrap();
        assert!(!read.end().await.unwrap(), "it is gone");
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn nonsense_is_no_mark() {
        for text in ["", "boot", "boot 1", "boot x 3", "boot 1 -3"] {
            assert!(text.parse::<ProcessMark>().is_err(), "{text}");
        }
    }
}

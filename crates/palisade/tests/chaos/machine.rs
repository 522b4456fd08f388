//! What a server holds of the machine, read from outside: processes and descriptors. Each server of these tests
//! runs as a uid of its own, so that nothing it leaves behind can hide or be taken for another's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
    name: String,
}

/// Every process of the uid that has not ended.
pub(crate) fn processes_of(uid: u32) -> BTreeSet<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| process(pid, uid)).collect()
}

fn process(pid: i32, uid: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let real = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    // Field 22 of the whole line, and 20 after the name.
    let started = fields.get(19)?.parse().ok()?;
    let name = head.split_once('(')?.1.to_owned();
    (real.parse() == Ok(uid) && !has_ended).then_some(Process { pid, started, name })
}

/// Open descriptors by what they are, without those that a healthy server keeps or drops as it likes: TCP
/// connections (kept alive) and the pooled connections to the database.
pub(crate) fn descriptors_of(pid: i32) -> BTreeMap<String, usize> {
    let unix = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let unix: BTreeSet<&str> = unix.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split_once(':') {
            Some(("socket", inode)) if !unix.contains(inode.trim_matches(['[', ']'])) => continue,
            Some((kind, _)) if !kind.starts_with('/') && kind != "anon_inode" => kind.to_owned(),
            _ if target.contains("palisade.db") => continue,
            // Each start has a name of its own.
            _ if target.contains("/servers/") => "the lock of a server".to_owned(),
            _ => target,
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

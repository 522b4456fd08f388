//! What /proc says of a process: its time, its memory, and what runs below it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Pid;

/// /proc counts in hundredths of a second, whatever the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);

/// Every process below this one.
pub(crate) fn descendants(root: Pid) -> Result<Vec<Pid>> {
    let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let Some(pid) =
            entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // Gone since the listing, or not.
        if let Some(parent) = stat(pid).ok().and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid.as_raw_nonzero().get()).unwrap_or_default();
        found.extend_from_slice(&below);
        next.extend(below);
    }
    Ok(found)
}

/// User and system time of a process so far.
pub(crate) fn cpu_time(pid: Pid) -> Result<Duration> {
    let fields = stat(pid)?;
    let ticks =
        |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok()).context("times in /proc");
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// The fields after the name, which may hold anything: the state is the first, the parent the second.
fn stat(pid: Pid) -> Result<Vec<String>> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Physical memory that a process has pages of, shared ones too.
pub(crate) fn resident_kib(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without memory")?;
    line.trim().trim_end_matches(" kB").parse().context("memory in /proc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_below_is_found_with_its_memory_and_time() {
        let own = rustix::process::getpid();
        let script = "sleep 60 & echo; wait";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let shell = Pid::from_child(&child);
        let below = descendants(own).unwrap();
        let grandchildren = descendants(shell).unwrap();
        assert!(below.contains(&shell) && grandchildren.len() == 1 && below.contains(&grandchildren[0]));
        assert!(resident_kib(shell).unwrap() > 0.0 && cpu_time(own).is_ok());
        rustix::process::kill_process(grandchildren[0], rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}

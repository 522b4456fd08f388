//! Private memory, as the kernel counts it in /proc: of the server at rest, of sessions asleep, of sandboxes awake.
//!
//! Growth is counted from a server that has already run some turns: what it allocates once, whoever comes first,
//! is no session's own.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_testkit::Server;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use rustix::process::Pid;
use serde_json::json;

use super::row::{Row, Unit};

/// Sessions that fill what is allocated once.
const WARM_UP: usize = 50;
const ASLEEP: usize = 200;
const AWAKE: usize = 20;
/// /proc counts in hundredths of a second, whatever the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);

pub(super) async fn measure(server: &Server, upstream: &ScriptedUpstream) -> Result<Vec<Row>> {
    let pid = server.pid().context("the server has no process")?;
    let fresh = private_kib(pid)?;
    talk(server, upstream, WARM_UP).await?;
    let before = private_kib(pid)?;
    talk(server, upstream, ASLEEP).await?;
    let asleep = private_kib(pid)?;
    work(server, upstream, AWAKE).await?;
    let hands = descendants(pid)?;
    let awake = hands.iter().map(|hand| private_kib(*hand)).sum::<Result<f64>>();
    let grown = private_kib(pid)? - asleep;

    let per_session = (asleep - before) / ASLEEP as f64;
    let mut rows = vec![
        Row::mean("server, nothing done yet", Unit::Kibibytes, fresh, 1),
        Row::mean(&format!("server, {} sessions", WARM_UP + ASLEEP), Unit::Kibibytes, asleep, 1),
        Row::mean("a session asleep, one turn behind it", Unit::Kibibytes, per_session, ASLEEP).goal(50.0),
    ];
    let row = |kib: f64| Row::mean("a session awake", Unit::Kibibytes, kib / AWAKE as f64, AWAKE);
    rows.push(match awake {
        Ok(awake) => row(awake + grown).goal(2048.0).note(format!(
            "{} processes per sandbox; {:.0} KiB of it in the server",
            hands.len() / AWAKE,
            grown / AWAKE as f64
        )),
        // Another user's processes; only root may look.
        Err(error) => row(f64::NAN).note(format!("{error:#}; other users' processes show it to root only")),
    });
    Ok(rows)
}

/// Sessions with a turn of text each, left alone.
pub(super) async fn talk(server: &Server, upstream: &ScriptedUpstream, count: usize) -> Result<()> {
    upstream.respond_with(|_| Answer::text("a few words, as an answer would have"));
    turns(server, count).await
}

/// Sessions with a turn that runs a command, whose sandboxes stay.
async fn work(server: &Server, upstream: &ScriptedUpstream, count: usize) -> Result<()> {
    upstream.respond_with(|request| {
        let messages = request.json["messages"].as_array().map_or(&[][..], Vec::as_slice);
        if messages.last().is_some_and(|last| last["role"] == "tool") {
            Answer::text("done")
        } else {
            Answer::tool_call("Bash", json!({"command": "true"}))
        }
    });
    turns(server, count).await
}

async fn turns(server: &Server, count: usize) -> Result<()> {
    for _ in 0..count {
        let session = server.session(json!({})).await;
        let events = server.send(&session, "go").await.rest().await;
        ensure!(events.last().is_some_and(|last| last.kind == "message.completed"), "a turn failed");
    }
    Ok(())
}

fn private_kib(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(private_of(&text))
}

fn private_of(rollup: &str) -> f64 {
    let fields = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum()
}

/// Every process below this one.
fn descendants(root: Pid) -> Result<Vec<Pid>> {
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
pub(super) fn cpu_time(pid: Pid) -> Result<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_the_clean_and_the_dirty() {
        let rollup = "55-7f ---p 00 00:00 0 [rollup]\nRss: 90 kB\nPss_Dirty: 7 kB\nPrivate_Clean:  12 kB\nPrivate_Dirty: 30 kB\n";
        assert_eq!(private_of(rollup), 42.0);
    }

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
        assert!(private_kib(shell).unwrap() > 0.0 && cpu_time(own).is_ok());
        rustix::process::kill_process(grandchildren[0], rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}

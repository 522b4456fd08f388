//! Start, end, and everything that must die in between (cases B28, B30, B31, B42).

use std::time::{Duration, Instant};

use palisade_sandbox::{
    Cgroups, Limits, Rootfs, RunExit, RunRequest, SandboxConfig, SandboxError, SandboxFactory, probe,
};

use crate::support::{Bench, host_processes, run, stdout, try_run, wait_for};

#[tokio::test]
async fn a_command_runs_and_its_output_comes_back() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let (exit, text) = run(&sandbox, "echo out; echo err >&2; pwd; exit 7").await;
    assert_eq!((exit, text.as_str()), (RunExit::Code(7), "out\nerr\n/workspace\n"));
}

#[tokio::test]
async fn the_probe_passes_here() {
    let bench = Bench::new();
    probe(&bench.factory).await.unwrap();
}

#[tokio::test]
async fn b42_what_is_missing_is_named() {
    let bench = Bench::new();
    let config = |hand: &str, bwrap: &str| SandboxConfig {
        hand: hand.into(),
        bwrap: bwrap.into(),
        rootfs: Rootfs::HostUsr,
        python_packages: None,
        limits: Limits::default(),
        cgroups: Cgroups::none("not asked for"),
    };
    let made = |config| SandboxFactory::new(config).map(drop);
    assert!(matches!(made(config("/bin/true", "no-such-bwrap")), Err(SandboxError::BwrapMissing(_))));
    assert!(matches!(made(config("/bin/true", "/no/such/bwrap")), Err(SandboxError::BwrapMissing(_))));
    let missing = made(config("/no/such/hand", "bwrap"));
    assert!(matches!(missing, Err(SandboxError::Unreachable { what: "hand's binary", .. })));

    // A hand that is none, a bubblewrap that is none, a workspace that is none: never a sandbox, always a cause.
    let wrong_hand = SandboxFactory::new(config("/bin/false", "bwrap")).unwrap();
    assert!(matches!(probe(&wrong_hand).await, Err(SandboxError::Start { .. })));
    let hand = bench.hand.to_str().unwrap();
    let wrong_bwrap = SandboxFactory::new(config(hand, "/bin/false")).unwrap();
    assert!(matches!(probe(&wrong_bwrap).await, Err(SandboxError::Start { .. })));
    let mut spec = bench.spec(&[""], &[""]);
    spec.workspace = bench.outside.join("missing");
    let error = bench.factory.start(spec).await.unwrap_err();
    assert!(error.to_string().contains("open the workspace"), "{error}");
}

#[tokio::test]
async fn two_sandboxes_live_side_by_side() {
    let bench = Bench::new();
    let (one, other) = (bench.whole().await, bench.whole().await);
    stdout(&one, "echo one > /tmp/x; echo shared > file").await;
    assert_eq!(stdout(&other, "cat file; ls /tmp").await, "shared");
    one.shutdown().await;
    assert_eq!(stdout(&other, "echo alive").await, "alive");
}

#[tokio::test]
async fn shutdown_leaves_nothing() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "setsid nohup sleep 7101 >/dev/null 2>&1 & (setsid bash -c 'sleep 7102 & exit' &); until [ $(pgrep -c -f '^sleep 710[12]') = 2 ]; do sleep 0.01; done")
        .await;
    assert!(!host_processes("sleep\u{0}7101").is_empty());
    sandbox.shutdown().await;
    assert!(host_processes("sleep\u{0}7101").is_empty() && host_processes("sleep\u{0}7102").is_empty());
    assert!(children().is_empty(), "unreaped: {:?}", children());
    assert!(sandbox.is_dead());
    assert!(matches!(try_run(&sandbox, "true", 1000).await, Err(SandboxError::Died(_))));
}

#[tokio::test]
async fn dropping_a_sandbox_or_a_start_leaves_nothing() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "setsid nohup sleep 7111 >/dev/null 2>&1 &").await;
    drop(sandbox);
    wait_for("the dropped sandbox to end", || {
        host_processes("sleep\u{0}7111").is_empty() && children().is_empty()
    })
    .await;
    // What the launcher leaves behind in the middle of a start would become our child.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    for after_us in (0..15_000).step_by(300) {
        let start = bench.factory.start(bench.spec(&[""], &[""]));
        let _ = tokio::time::timeout(Duration::from_micros(after_us), start).await;
    }
    wait_for("the dropped starts to end", || !children().into_iter().any(is_alive)).await;
}

#[tokio::test]
async fn the_factorys_shutdown_ends_all() {
    let bench = Bench::new();
    let (one, other) = (bench.whole().await, bench.whole().await);
    bench.factory.shutdown().await;
    assert!(one.is_dead() && other.is_dead() && children().is_empty());
    assert!(bench.factory.start(bench.spec(&[""], &[""])).await.is_err());
}

#[tokio::test]
async fn a_killed_pid_1_is_an_error_for_the_running_call_and_for_the_next() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // The shell stays: one that becomes its last command shows no command line at all for a moment.
    let command = "exec bash -c 'echo up; sleep 7121; exit'".into();
    let request = RunRequest { command, timeout_ms: 60_000, background: false };
    let kill = |_: &[u8]| {
        let inside = host_processes("sleep 7121").into_iter();
        let parent =
            inside.filter_map(parent_of).find(|pid| host_processes("\u{0}--init").contains(pid)).unwrap();
        let parent = rustix::process::Pid::from_raw(parent).unwrap();
        rustix::process::kill_process(parent, rustix::process::Signal::KILL).unwrap();
    };
    let error = sandbox.run(request, kill).await.unwrap_err();
    assert!(error.is_fatal(), "{error}");
    sandbox.died().await;
    assert!(matches!(sandbox.end_turn().await, Err(SandboxError::Died(_))));
    wait_for("everything inside to die", || host_processes("sleep\u{0}7121").is_empty()).await;
    assert_eq!(stdout(&bench.whole().await, "echo again").await, "again");
}

#[test]
fn b31_a_sandbox_outlives_the_thread_that_asked_for_it() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let spec = bench.spec(&[""], &[""]);
    let factory = bench.factory.clone();
    let asked = std::thread::spawn(move || handle.block_on(factory.start(spec)).unwrap());
    let sandbox = asked.join().unwrap();
    runtime.block_on(async {
        // By now a death signal of the ended thread would have arrived: the kernel sends it at the thread's end.
        for _ in 0..20 {
            assert_eq!(stdout(&sandbox, "sleep 0.01; echo alive").await, "alive");
        }
    });
}

#[tokio::test]
async fn how_long_it_takes() {
    let bench = Bench::new();
    let mut starts = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let sandbox = bench.whole().await;
        starts.push(start.elapsed());
        sandbox.shutdown().await;
    }
    let sandbox = bench.whole().await;
    let (mut warm, mut file) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let start = Instant::now();
        assert_eq!(run(&sandbox, "true").await.0, RunExit::Code(0));
        warm.push(start.elapsed());
        let start = Instant::now();
        crate::support::tool(&sandbox, "Write", serde_json::json!({"file_path": "f", "content": "x"})).await;
        file.push(start.elapsed());
    }
    let mut plain = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        assert!(std::process::Command::new("/bin/bash").args(["-c", "true"]).status().unwrap().success());
        plain.push(start.elapsed());
    }
    for (name, mut times) in
        [("start", starts), ("warm true", warm), ("file tool", file), ("plain bash true", plain)]
    {
        times.sort();
        println!(
            "{name}: p50 {:?} p90 {:?} max {:?}",
            times[times.len() / 2],
            times[times.len() * 9 / 10],
            times.last()
        );
    }
}

/// This process' children, dead ones included: of this test alone, since the runner gives each its own process.
fn children() -> Vec<i32> {
    let children =
        std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path().join("children"));
    let texts = children.filter_map(|path| std::fs::read_to_string(path).ok());
    texts
        .flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>())
        .collect()
}

fn is_alive(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("State:") && !status.contains("State:\tZ")
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[test]
#[ignore = "the server that b30 kills; it never ends by itself"]
fn a_server_with_a_sandbox() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::new();
        let sandbox = bench.whole().await;
        let request =
            RunRequest { command: "setsid sleep 7131 & sleep 7131".into(), timeout_ms: 0, background: true };
        sandbox.run(request, |_| {}).await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn b30_a_killed_server_takes_everything_with_it() {
    let bench = Bench::new();
    let mut server = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "life::a_server_with_a_sandbox", "--ignored", "--nocapture"])
        // What it leaves, because it is killed, goes with our own folder.
        .env("TMPDIR", &bench.outside)
        .env("PALISADE_HAND", &bench.hand)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the sandbox to be up", || host_processes("sleep\u{0}7131").len() == 2).await;
    server.kill().unwrap();
    server.wait().unwrap();
    let start = Instant::now();
    wait_for("everything to die", || host_processes("sleep\u{0}7131").is_empty()).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn many_lives_leak_no_descriptor() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let bench = Bench::new();
    bench.whole().await.shutdown().await;
    let before = open();
    let start = Instant::now();
    let mut sandboxes = Vec::new();
    for _ in 0..50 {
        sandboxes.push(bench.whole().await);
    }
    println!("50 sandboxes in {:?}, {} descriptors", start.elapsed(), open() - before);
    assert!(open() - before <= 50 * 4);
    for sandbox in &sandboxes {
        assert_eq!(stdout(sandbox, "echo alive").await, "alive");
    }
    for sandbox in sandboxes {
        sandbox.shutdown().await;
    }
    wait_for("every descriptor to be closed", || open() <= before).await;
}

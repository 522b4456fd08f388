//! Output, deadlines and what a command leaves behind (cases B28, B29, B34–B36).

use std::time::{Duration, Instant};

use palisade_sandbox::{COMMAND_BYTES_MAX, Note, RunExit, RunRequest, SandboxError};

use crate::support::{Bench, host_processes, run, stdout, try_run, wait_for};

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (command, expected) in [
        ("true", RunExit::Code(0)),
        ("exit 255", RunExit::Code(255)),
        ("kill -TERM $$", RunExit::Signal(15)),
        ("no-such-command 2>/dev/null", RunExit::Code(127)),
        ("read line", RunExit::Code(1)),
    ] {
        assert_eq!(run(&sandbox, command).await.0, expected, "{command}");
    }
}

#[tokio::test]
async fn each_command_is_a_fresh_shell() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "export X=1; cd /tmp; alias ls=false; ulimit -n 10").await;
    assert_eq!(stdout(&sandbox, "echo \"[$X]\" $PWD; ls -d .").await, "[] /workspace\n.");
}

#[tokio::test]
async fn b29_a_child_that_holds_the_output_open_does_not_delay_the_answer() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for command in
        ["sleep 600 & echo done", "setsid sleep 600 & echo done", "(set -m; sleep 600 & echo done)"]
    {
        let start = Instant::now();
        assert_eq!(run(&sandbox, command).await, (RunExit::Code(0), "done\n".into()), "{command}");
        assert!(start.elapsed() < Duration::from_secs(5), "{command}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn b28_what_a_command_leaves_in_its_session_dies_with_it_and_the_rest_with_the_turn() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "sleep 7001 & (set -m; sleep 7002 &) ; nohup sleep 7003 >/dev/null 2>&1 & disown").await;
    for marker in ["7001", "7002", "7003"] {
        wait_for("the session's processes to die", || host_processes(&format!("sleep\0{marker}")).is_empty())
            .await;
    }
    stdout(&sandbox, "setsid nohup sleep 7004 >/dev/null 2>&1 & (setsid bash -c 'sleep 7005 & exit' &); until [ $(pgrep -c -f '^sleep 700[45]') = 2 ]; do sleep 0.01; done")
        .await;
    sandbox.end_turn().await.unwrap();
    assert!(host_processes("sleep\u{0}7004").is_empty() && host_processes("sleep\u{0}7005").is_empty());
    assert_eq!(
        stdout(&sandbox, "ls -d /proc/[0-9]* | wc -l; echo alive").await.lines().last(),
        Some("alive")
    );
}

#[tokio::test]
async fn b34_a_flood_passes_in_bounded_pieces_until_its_deadline() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let (mut total, mut largest) = (0_u64, 0);
    let request = RunRequest { command: "yes".into(), timeout_ms: 300, background: false };
    let start = Instant::now();
    let exit = sandbox.run(request, |bytes| {
        total += bytes.len() as u64;
        largest = largest.max(bytes.len());
    });
    assert_eq!(exit.await.unwrap(), RunExit::TimedOut);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10));
    assert!(total > 1024 * 1024 && largest <= 64 * 1024, "{total} bytes, {largest} at once");
    // So much at once, one piece in each millisecond from there on, and what the pipe holds at the end.
    let paced = (17 << 20) + (u64::try_from(took.as_millis()).unwrap() + 1) * 64 * 1024 + (1 << 20);
    assert!(total <= paced, "{total} bytes in {took:?}");
}

#[tokio::test]
async fn b34_all_output_before_the_end_arrives() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let (exit, text) = run(&sandbox, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end").await;
    assert_eq!((exit, text.len()), (RunExit::Code(0), 3_000_000 + 5));
    assert!(text.ends_with("x\nend\n"));
}

#[tokio::test]
async fn b34_a_long_command_runs_and_a_longer_one_is_refused() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // Longer than any argument may be.
    let long = format!("cat > f <<'END'\n{}\nEND\nwc -c < f", "x".repeat(1_000_000));
    assert_eq!(stdout(&sandbox, &long).await, "1000001");
    for command in ["x".repeat(COMMAND_BYTES_MAX + 1), "echo a\0b".into()] {
        assert!(matches!(try_run(&sandbox, &command, 1000).await, Err(SandboxError::Command(_))));
    }
}

/// In its shell's arguments it was found by `pkill -f`, which ended the shell.
#[tokio::test]
async fn a_command_stands_in_no_argument() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (command, expected) in [
        ("pkill -f anything; echo after", "after"),
        ("pkill -f 'sleep 7031'; pgrep -f some_server.py; echo after", "after"),
        ("sleep 7032 & pkill -f 'sleep 7032'; wait; echo after", "after"),
        ("tr '\\0' ' ' < /proc/$$/cmdline | grep -c secret-word; echo after", "0\nafter"),
        // All else is as it is in `bash -c`.
        ("echo $0 $# $-; ls /proc/self/fd | tr '\\n' ' '", "bash 0 hBc\n0 1 2 3"),
        ("set -e; trap 'echo bye' EXIT; (exit 3) || echo $?; exec echo gone", "3\ngone"),
        ("printf '%s|' 'a b' $'c\\td' \"`echo e`\" \"\\$f\"; cat <<< here", "a b|c\td|e|$f|here"),
        ("f() { echo $LINENO; }\n\nf; echo \\\\ 'x\ny'", "1\n\\ x\ny"),
    ] {
        assert_eq!(stdout(&sandbox, command).await, expected, "{command}");
    }
    for (command, code, said) in [
        ("exit 7", 7, ""),
        ("true\nnosuch", 127, "bash: line 2: nosuch: command not found\n"),
        ("echo a\nif", 2, "syntax error: unexpected end of file\n"),
        ("echo a\necho \"b", 2, "line 2: unexpected EOF while looking for matching `\"'\n"),
    ] {
        let (exit, text) = run(&sandbox, command).await;
        assert!(exit == RunExit::Code(code) && text.ends_with(said), "{command}: {exit:?} {text}");
    }
}

#[tokio::test]
async fn what_ends_with_a_call_is_told() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(stdout(&sandbox, "sleep 0 & wait; echo done").await, "done");
    assert_eq!(sandbox.take_notes(), []);
    // Whoever starts it has its own name until it does.
    let runs = "until grep -qsx sleep /proc/[0-9]*/comm; do :; done";
    stdout(&sandbox, &format!("nohup sleep 7041 >/dev/null 2>&1 & disown; {runs}")).await;
    assert_eq!(sandbox.take_notes(), [Note::Ended(names(&["sleep"]))]);
    stdout(&sandbox, &format!("setsid --fork sleep 7042 >/dev/null 2>&1; {runs}")).await;
    assert_eq!(sandbox.take_notes(), [Note::Adrift(names(&["sleep"]))]);
    // Told once.
    stdout(&sandbox, "true").await;
    assert_eq!(sandbox.take_notes(), []);
    sandbox.end_turn().await.unwrap();
    // What only follows its command is let finish, and is nothing to tell.
    assert_eq!(stdout(&sandbox, "echo kept > >(sleep 0.02; cat > log); true").await, "");
    assert_eq!((bench.get("log").as_str(), sandbox.take_notes()), ("kept\n", vec![]));
}

#[tokio::test]
async fn the_end_of_a_background_command_is_told_with_its_last_output() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let command = "head -c 5000 /dev/zero | tr '\\0' x; echo; echo last words; exit 3".to_owned();
    let request = RunRequest { command, timeout_ms: 0, background: true };
    let RunExit::Background { pid, log } = sandbox.run(request, |_| {}).await.unwrap() else {
        panic!("it waits")
    };
    wait_for("its end", || sandbox.background_count() == 0).await;
    let told = sandbox.take_notes();
    let [Note::Background { pid: of, exit: RunExit::Code(3), log: in_log, tail }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((*of, in_log, tail.len()), (pid, &log, 1024));
    assert!(tail.ends_with("xx\nlast words\n"));
    assert_eq!(stdout(&sandbox, &format!("wc -c < {log}")).await, "5012");
}

#[tokio::test]
async fn b35_the_deadline_asks_first_and_then_insists() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let polite = "trap 'echo asked; exit 3' TERM; sleep 600 & wait";
    assert_eq!(try_run(&sandbox, polite, 200).await.unwrap(), (RunExit::TimedOut, "asked\n".into()));
    let start = Instant::now();
    let stubborn = "trap '' TERM; while true; do sleep 0.1; done";
    assert_eq!(try_run(&sandbox, stubborn, 200).await.unwrap().0, RunExit::TimedOut);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(2_000) && took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn b36_orphans_are_reaped() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "for i in $(seq 300); do (setsid true &) ; done").await;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let zombies = stdout(&sandbox, "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l").await;
        if zombies == "0" {
            break;
        }
        assert!(Instant::now() < until, "{zombies} zombies");
    }
}

#[tokio::test]
async fn dropping_a_run_kills_its_command() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let request = RunRequest { command: "echo up; sleep 7010".into(), timeout_ms: 60_000, background: false };
    let (sender, up) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let run = sandbox.run(request, move |_| {
        // Told once, at the first output.
        sender.take().map(|sender| sender.send(()));
    });
    tokio::select! {
        exit = run => panic!("it ended by itself: {exit:?}"),
        up = up => up.unwrap(),
    }
    wait_for("the dropped command to die", || host_processes("sleep\u{0}7010").is_empty()).await;
    assert_eq!(stdout(&sandbox, "echo alive").await, "alive");
}

#[tokio::test]
async fn a_background_command_outlives_the_turn_and_not_the_sandbox() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let request = RunRequest { command: "echo serving; sleep 7020".into(), timeout_ms: 0, background: true };
    let exit = sandbox.run(request, |_| panic!("a background command has no live output")).await.unwrap();
    let RunExit::Background { pid, log } = exit else { panic!("{exit:?}") };
    let on_host = bench.home.join(log.strip_prefix("/home/agent/").unwrap());
    wait_for("its output", || std::fs::read_to_string(&on_host).is_ok_and(|text| text == "serving\n")).await;
    stdout(&sandbox, "setsid sleep 7021 >/dev/null 2>&1 & true").await;
    sandbox.end_turn().await.unwrap();
    assert_eq!((sandbox.background_count(), host_processes("sleep\u{0}7021").len()), (1, 0));
    stdout(&sandbox, &format!("kill -0 {pid} && kill {pid}")).await;
    wait_for("the background command to end", || sandbox.background_count() == 0).await;
    let request = RunRequest { command: "sleep 7022".into(), timeout_ms: 0, background: true };
    assert!(matches!(sandbox.run(request, |_| {}).await.unwrap(), RunExit::Background { .. }));
    sandbox.shutdown().await;
    assert!(host_processes("sleep\u{0}7022").is_empty());
    assert_eq!((sandbox.background_count(), sandbox.background_lost()), (0, 1));
}

#[tokio::test]
async fn calls_may_run_at_once() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let waiting = run(&sandbox, "until [ -e flag ]; do sleep 0.01; done; echo seen");
    let setting = run(&sandbox, "touch flag");
    let (waited, set) = tokio::join!(waiting, setting);
    assert_eq!((waited.1.as_str(), set.0), ("seen\n", RunExit::Code(0)));
}

//! The proxy as a process of its own: killed, without room for its log, and with more connections than it has use for.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use palisade_egress::{AuditLog, AuditSettings, DoorLimits, Proxy, ProxySettings, Resolver, verify};
use palisade_testkit::{
    origin::{Manner, Origin},
    resolver::FakeResolver,
    wait_for,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::world::{Setup, hello, parts, read_to_end, read_until, session};

const FOLDER: &str = "PALISADE_TEST_EGRESS_FOLDER";
const RESOLVER: &str = "PALISADE_TEST_EGRESS_RESOLVER";
const ORIGIN_PORT: &str = "PALISADE_TEST_EGRESS_ORIGIN_PORT";

/// A process that is killed when the test is over.
struct Process {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    origin: Origin,
    resolver: FakeResolver,
}

/// Not a test: what the others run as a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the other tests of this file"]
async fn proxy_process() {
    let variable = |name| std::env::var(name).expect("started by another test");
    let folder = PathBuf::from(variable(FOLDER));
    let policy = Setup::default().spec(variable(ORIGIN_PORT).parse().expect("a port"));
    let resolver = Resolver::new(variable(RESOLVER).parse().expect("an address")).expect("a resolver");
    let audit = AuditLog::open(&folder.join("audit"), AuditSettings::default()).expect("a log");
    let settings =
        ProxySettings { connections_max: 20_000, tenant_connections_max: 20_000, ..ProxySettings::default() };
    let proxy = Proxy::new(parts(policy, resolver, audit, settings)).expect("a proxy");
    let door = proxy
        .door(session(), DoorLimits { connections_max: 20_000, ..DoorLimits::default() })
        .expect("a door");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    door.listen(listener);
    std::fs::write(folder.join("port.new"), port.to_string()).expect("written");
    std::fs::rename(folder.join("port.new"), folder.join("port")).expect("renamed");
    std::future::pending::<()>().await;
}

impl Process {
    async fn start(manner: Manner, through: &[&str]) -> Self {
        let resolver = FakeResolver::start().await.expect("a name server");
        let origin = Origin::start(manner).await.expect("an origin");
        for name in ["allowed.test", "raw.test"] {
            resolver.set_addresses(name, &["127.0.0.1"]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let own = std::env::current_exe().expect("this test");
        let own = own.to_str().expect("a path");
        let arguments = ["process::proxy_process", "--exact", "--ignored", "--nocapture"];
        let whole: Vec<&str> = through.iter().copied().chain([own]).chain(arguments).collect();
        let child = Command::new(whole[0])
            .args(&whole[1..])
            .env(FOLDER, folder.path())
            .env(RESOLVER, resolver.address().to_string())
            .env(ORIGIN_PORT, origin.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let port_file = folder.path().join("port");
        let listening = || async { std::fs::read_to_string(&port_file).ok()?.parse().ok() };
        let port = wait_for("the proxy's port", listening).await;
        Self { child, folder, port, origin, resolver }
    }

    fn audit(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port)).await
    }

    async fn tunnel(&self, name: &str) -> TcpStream {
        let mut stream = self.connect().await.expect("it listens");
        let head = format!("CONNECT {name}:{} HTTP/1.1\r\n\r\n", self.origin.port());
        stream.write_all(head.as_bytes()).await.expect("sent");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stream
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Processor time of all its threads so far, in microseconds, as the scheduler counted it: ticks would miss short bursts.
    fn processor_us(&self) -> u64 {
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("threads").flatten();
        let spent = threads.map(|thread| {
            let spent = std::fs::read_to_string(thread.path().join("schedstat")).expect("a count");
            spent.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).expect("nanoseconds")
        });
        spent.sum::<u64>() / 1000
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn opens(audit: &Path) -> usize {
    let log = std::fs::read_to_string(audit.join("current.jsonl")).expect("a log");
    log.lines().filter(|line| line.contains("\"kind\":\"open\"")).count()
}

/// EG-J7: killed while connections are being made: each that the origin saw has its open record, and the log goes on.
#[tokio::test]
async fn a_kill_loses_no_open_record() {
    let mut process = Process::start(Manner::Silent, &[]).await;
    let enough = async {
        loop {
            let seen = process.origin.seen().len();
            if seen > 150 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let connecting = futures_util::future::join_all((0..8).map(|_| async {
        let mut held = Vec::new();
        loop {
            let Ok(mut stream) = process.connect().await else { return held };
            let head = format!("CONNECT allowed.test:{} HTTP/1.1\r\n\r\n", process.origin.port());
            let mut byte = [0];
            if stream.write_all(head.as_bytes()).await.is_err() || stream.read(&mut byte).await.is_err() {
                return held;
            }
            held.push(stream);
        }
    }));
    tokio::select! {
        _ = connecting => panic!("it ended by itself"),
        () = enough => {}
    }
    process.kill();
    let seen = process.origin.seen().len();
    let verified = verify(&process.audit()).expect("whole but for its end");
    let opens = opens(&process.audit());
    assert!(opens >= seen && seen > 150, "{opens} records, {seen} connections");
    let log = AuditLog::open(&process.audit(), AuditSettings::default()).expect("it goes on");
    drop(log);
    assert_eq!(verify(&process.audit()).expect("whole").last_seq, verified.last_seq);
}

/// EG-J7: with no room for its log the proxy opens nothing.
#[tokio::test]
async fn no_log_no_connection() {
    // Files may have 16 KiB; writing more fails instead of ending the process.
    let process =
        Process::start(Manner::Echo, &["bash", "-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]).await;
    let head = format!("CONNECT allowed.test:{} HTTP/1.1\r\n\r\n", process.origin.port());
    let mut refused = 0;
    for _ in 0..200 {
        let mut stream = process.connect().await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("an answer");
        if first == *b"HTTP/1.1 503" {
            assert!(read_to_end(&mut stream).await.contains("egress.audit-unavailable"));
            refused += 1;
        } else {
            // What did not fit may have been written together with something else, and be followed by less.
            assert_eq!(&first, b"HTTP/1.1 200");
        }
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the log never filled up");
    let opens = opens(&process.audit());
    assert_eq!(process.origin.seen().len(), opens, "one connection for each record");
    verify(&process.audit()).expect("whole lines only");
}

/// EG-J5: many connections that say nothing, and many silent tunnels, cost little each.
#[tokio::test]
async fn silent_connections_cost_little() {
    let long = std::env::var_os("PALISADE_LONG_TESTS").is_some();
    let count: u32 = if long { 10_000 } else { 1_000 };
    let process = Process::start(Manner::Silent, &[]).await;
    drop(process.tunnel("allowed.test").await);
    let before_kib = process.resident_kib();
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(process.connect().await.expect("it listens"));
    }
    // Answered after all that came before it.
    drop(process.tunnel("allowed.test").await);
    let idle_kib = process.resident_kib();
    println!("{count} silent connections: {before_kib} KiB before, {idle_kib} KiB with them");
    assert!(
        idle_kib - before_kib < u64::from(count) * 16,
        "{before_kib} KiB before, {idle_kib} KiB with {count}"
    );
    held.clear();
    let tunnels = count / 5;
    let mut open = Vec::new();
    for _ in 0..tunnels {
        let mut tunnel = process.tunnel("allowed.test").await;
        tunnel.write_all(&hello("allowed.test")).await.expect("sent");
        open.push(tunnel);
    }
    let tunnels_kib = process.resident_kib();
    println!("{tunnels} silent tunnels: {tunnels_kib} KiB");
    assert!(
        tunnels_kib.saturating_sub(before_kib) < 30 * 1024 + u64::from(tunnels) * 64,
        "{tunnels_kib} KiB"
    );
    drop(open);
}

/// Prints what a tunnel, and a gigabyte, cost in processor time: `--release -- --ignored --nocapture costs`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: slow, and only of use in a release build"]
async fn costs() {
    let process = Process::start(Manner::Echo, &[]).await;
    let first = hello("allowed.test");
    let (count, at_a_time) = (4_000usize, 16);
    let began = std::time::Instant::now();
    let before_us = process.processor_us();
    let each = futures_util::future::join_all((0..at_a_time).map(|_| async {
        for _ in 0..count / at_a_time {
            let mut tunnel = process.tunnel("allowed.test").await;
            tunnel.write_all(&first).await.expect("sent");
            let mut echoed = vec![0; first.len()];
            tunnel.read_exact(&mut echoed).await.expect("echoed");
        }
    }));
    each.await;
    let (spent_us, took) = (process.processor_us() - before_us, began.elapsed());
    println!(
        "{} µs of processor per tunnel, {:.0} tunnels/s",
        spent_us / count as u64,
        count as f64 / took.as_secs_f64()
    );

    // What was counted is what happened: every tunnel was looked up, recorded, dialled and carried its bytes.
    assert_eq!(process.resolver.times_asked("allowed.test"), count);
    assert_eq!(opens(&process.audit()), count);
    process.origin.wait_for_ends(count).await;
    assert_eq!(process.origin.bytes().len(), count * first.len());

    let mut tunnel = process.tunnel("raw.test").await;
    let (mut from, mut to) = tunnel.split();
    let piece = vec![7; 256 * 1024];
    let pieces = 4096;
    let before_us = process.processor_us();
    let began = std::time::Instant::now();
    let sending = async {
        for _ in 0..pieces {
            to.write_all(&piece).await.expect("sent");
        }
        to.shutdown().await.expect("an end");
    };
    let reading = async {
        let mut buffer = vec![0; 256 * 1024];
        let mut read = 0u64;
        loop {
            match from.read(&mut buffer).await.expect("readable") {
                0 => break read,
                count => read += count as u64,
            }
        }
    };
    let ((), read) = tokio::join!(sending, reading);
    assert_eq!(read, pieces as u64 * piece.len() as u64);
    let spent_us = process.processor_us() - before_us;
    println!("2 GiB relayed (1 GiB each way) in {:?}: {spent_us} µs of processor", began.elapsed());
    println!("{} KiB resident", process.resident_kib());
}

//! A server serves whether or not anybody reads its log: a pipe whose reader is gone, a full disk, a pipe that nobody reads.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use palisade_testkit::server;

const KEY: &str = "pk_acme_0123456789abcdef0123456789abcdef";

/// A server whose standard error is this.
struct Started {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

fn start(stderr: Stdio) -> Started {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = folder.path().join("palisade.toml");
    let config = format!(
        "[[tenant]]\nname = \"acme\"\ntokens = [{{ id = \"t\", key = \"env:ACME_KEY\" }}]\n[sandbox]\nhand = {:?}\n",
        server::hand()
    );
    std::fs::write(&file, config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .env("ACME_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address =
        lines.find_map(|line| line.unwrap().strip_prefix("listening on http://")?.parse().ok()).unwrap();
    Started { child, address, _folder: folder }
}

impl Started {
    /// So many requests over one connection, and the last answer.
    fn ask(&self, path: &str, times: usize) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n");
        let (more, last) = (format!("{request}\r\n"), format!("{request}Connection: close\r\n\r\n"));
        let mut writing = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            for _ in 1..times {
                writing.write_all(more.as_bytes()).unwrap();
            }
            writing.write_all(last.as_bytes()).unwrap();
        });
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        writer.join().unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), times, "every request is answered");
        answers
    }

    /// How many lines were lost, by its own count.
    fn lost(&self) -> u64 {
        let metrics = self.ask("/metrics", 1);
        let line = metrics.lines().find(|line| line.starts_with("palisade_log_lines_lost_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn stops_in_good_order(mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// A pipe, so that the log goes in and this comes out.
fn pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    let (reader, writer) = pipe();
    let server = start(writer);
    drop(reader);
    server.ask("/health", 20);
    assert!(server.lost() >= 20);
    server.stops_in_good_order();
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let server = start(full.into());
    server.ask("/health", 20);
    assert!(server.lost() >= 20);
    server.stops_in_good_order();
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_tells_what_was_lost_when_somebody_does() {
    // More than the pipe and the server's own buffers hold.
    const REQUESTS: usize = 12_000;
    let (reader, writer) = pipe();
    let server = start(writer);
    server.ask("/health", REQUESTS);
    let lost = server.lost();
    assert!(lost > 0, "what does not fit is lost, and the memory is bounded");
    let mut lines = BufReader::new(reader).lines();
    let told = lines.find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).expect("no line is torn");
        line["message"].as_str()?.starts_with("log lines were lost").then(|| line["lost"].as_u64().unwrap())
    });
    assert!(told.unwrap() >= lost);
    // And again, with nobody who reads while it stops.
    server.ask("/health", 2_000);
    server.stops_in_good_order();
    drop(lines);
}

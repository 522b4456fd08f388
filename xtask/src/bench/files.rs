//! Files over HTTP beside Debian's nginx, which has the same files on the same disk, logs its requests as we do, and has
//! nothing to ask before it sends them. One client for both, taken in turn.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use palisade_testkit::Server;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::row::{Row, Unit};

const LARGE_BYTES: usize = 100 * 1024 * 1024;
const SMALL_BYTES: usize = 1024;
/// Clients of the small file, each on a connection of its own.
const CLIENTS: usize = 8;
/// A throughput of four fifths is a time of five quarters.
const TIMES_FLOOR_MAX: f64 = 1.25;
/// Long enough for nginx to listen, or to say why not.
const START_MAX: Duration = Duration::from_secs(5);

/// The rows, and nginx's as floors.
pub(super) async fn measure(
    server: &Server,
    large_count: usize,
    small_count: usize,
) -> Result<(Vec<Row>, Vec<Row>)> {
    let session = server.session(json!({})).await;
    let workspace = server.workspace();
    for (name, bytes) in [("large", LARGE_BYTES), ("small", SMALL_BYTES)] {
        std::fs::write(workspace.join(name), vec![b'x'; bytes]).context("writing the files to be sent")?;
    }
    let nginx = Nginx::start(&workspace).await?;
    let address: SocketAddr =
        server.url.trim_start_matches("http://").parse().context("the server's address")?;
    let ours = |name: &str| Target {
        address,
        path: format!("/v1/sessions/{session}/files/{name}"),
        header: format!("Authorization: Bearer {}\r\n", palisade_testkit::server::KEY),
    };
    let theirs =
        |name: &str| Target { address: nginx.address, path: format!("/{name}"), header: String::new() };
    // What a request costs here that opens no file: the same server, its log and its layers.
    let health = Target { address, path: "/health".to_owned(), header: String::new() };
    let (mut rows, mut floors) = (Vec::new(), Vec::new());
    for (what, name, clients, count) in
        [("GET 100 MiB", "large", 1, large_count), ("GET 1 KiB, 8 at a time", "small", CLIENTS, small_count)]
    {
        let mut means = [0.0, 0.0, 0.0];
        // First a round that fills caches, then turn by turn: the machine's mood changes.
        for round in 0..=ROUNDS {
            let targets = [Some(ours(name)), Some(theirs(name)), (clients > 1).then(|| health.clone())];
            for (mean, target) in means.iter_mut().zip(targets) {
                let Some(target) = target else { continue };
                let took_ms = target.time(clients, count.div_ceil(ROUNDS)).await?;
                *mean += if round == 0 { 0.0 } else { took_ms / ROUNDS as f64 };
            }
        }
        let floor = Row::mean(&format!("{what} from nginx"), Unit::Milliseconds, means[1], count);
        let row = Row::mean(what, Unit::Milliseconds, means[0], count).above(&[&floor]);
        rows.push(row.goal(TIMES_FLOOR_MAX * means[1]));
        floors.push(floor);
        if clients > 1 {
            floors.push(Row::mean("GET /health, 8 at a time", Unit::Milliseconds, means[2], count));
        }
    }
    Ok((rows, floors))
}

/// How often the two take turns.
const ROUNDS: usize = 5;

#[derive(Clone)]
struct Target {
    address: SocketAddr,
    path: String,
    header: String,
}

impl Target {
    /// Milliseconds for each of `count` requests, from so many clients at once.
    async fn time(&self, clients: usize, count: usize) -> Result<f64> {
        let each = count.div_ceil(clients);
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let target = self.clone();
            tasks.spawn(async move { target.get(each).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.context("a client")??;
        }
        Ok(began.elapsed().as_secs_f64() * 1e3 / (each * clients) as f64)
    }

    /// So many requests on one connection.
    async fn get(&self, count: usize) -> Result<()> {
        let mut stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\n{}\r\n", self.path, self.header);
        let mut buffer = vec![0; 256 * 1024];
        for _ in 0..count {
            stream.write_all(request.as_bytes()).await.context("asking")?;
            let mut read = 0;
            let (head, length) = loop {
                read += stream.read(&mut buffer[read..]).await.context("reading a head")?;
                if let Some(head) = buffer[..read].windows(4).position(|end| end == b"\r\n\r\n") {
                    break (head + 4, length(&buffer[..head])?);
                }
                ensure!(read < buffer.len(), "the head has no end");
            };
            let mut left = length.saturating_sub(read - head);
            while left > 0 {
                match stream.read(&mut buffer).await.context("reading a body")? {
                    0 => bail!("the body broke off {left} bytes before its end"),
                    more => left = left.saturating_sub(more),
                }
            }
        }
        Ok(())
    }
}

fn length(head: &[u8]) -> Result<usize> {
    let head = String::from_utf8_lossy(head).to_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "not the file: {head}");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    length.and_then(|text| text.trim().parse().ok()).context("an answer without a length")
}

/// Debian's nginx over a folder. Ends with the value.
struct Nginx {
    address: SocketAddr,
    child: Child,
    folder: std::path::PathBuf,
}

impl Nginx {
    async fn start(root: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
        let address = listener.local_addr().context("looking for a free port")?;
        drop(listener);
        let folder = std::env::temp_dir().join(format!("palisade-bench-nginx-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("making nginx's folder")?;
        let (at, root) = (folder.display(), root.display());
        // Debian's own settings, its log of requests among them, as the server has one, too; one process, which has no
        // workers that outlive it.
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ sendfile on; tcp_nopush on; access_log {at}/access.log; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; keepalive_requests 1000000;\n\
             server {{ listen {address}; root {root}; }} }}\n"
        );
        std::fs::write(folder.join("nginx.conf"), config).context("writing nginx's configuration")?;
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let child = Command::new(program)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting nginx, which the files are compared with")?;
        let nginx = Self { address, child, folder };
        let began = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            ensure!(began.elapsed() < START_MAX, "nginx does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // What is left of it is a folder in /tmp.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

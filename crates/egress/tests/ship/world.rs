//! A bucket behind a proxy, and something between the two that fails when told to.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade_egress::{
    AuditLog, AuditSettings, Bucket, BucketSpec, Credentials, DoorLimits, NoCredentials, PolicySpec,
    Principal, Proxy, ProxyClient, ProxyParts, ProxySettings, Resolver, ShipTarget, Trust, verify,
};
use palisade_testkit::wait_for;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) const SECRET_KEY: &str = "a-secret-key-of-the-bucket";
const BUCKET: &str = "audit-copies";
const FOLDER: &str = "PALISADE_TEST_SHIP_FOLDER";
const ENDPOINT: &str = "PALISADE_TEST_SHIP_ENDPOINT";

pub(crate) struct World {
    folder: tempfile::TempDir,
    endpoint: String,
    failures_left: Arc<AtomicU32>,
    _server: Child,
    _between: AbortOnDropHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (server, port) = moto().await;
        let failures_left = Arc::new(AtomicU32::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let between = tokio::runtime::Handle::current().spawn(pass(listener, port, failures_left.clone()));
        let folder = tempfile::tempdir().expect("a folder");
        let world = Self {
            folder,
            endpoint,
            failures_left,
            _server: server,
            _between: AbortOnDropHandle::new(between),
        };
        let made = world.aws("PUT", &format!("/{BUCKET}")).await;
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        world
    }

    pub(crate) fn audit(&self) -> &Path {
        // Made by whoever opens the log first.
        Box::leak(self.folder.path().join("audit").into_boxed_path())
    }

    pub(crate) fn bucket(&self) -> ShipTarget {
        bucket(self.folder.path(), &self.endpoint)
    }

    /// The next requests are answered with a 500.
    pub(crate) fn fail_next(&self, count: u32) {
        self.failures_left.store(count, Relaxed);
    }

    /// Everything in the bucket, as files.
    pub(crate) async fn download(&self) -> tempfile::TempDir {
        let listed = self.aws("GET", &format!("/{BUCKET}?list-type=2&max-keys=1000")).await;
        let copy = tempfile::tempdir().expect("a folder");
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        for key in keys {
            let bytes = self.raw("GET", &format!("/{BUCKET}/{key}")).await;
            let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
            let name = key.rsplit('/').next().expect("a name");
            std::fs::write(copy.path().join(name), &bytes[body..]).expect("written");
        }
        copy
    }

    async fn aws(&self, method: &str, path: &str) -> String {
        String::from_utf8_lossy(&self.raw(method, path).await).into_owned()
    }

    async fn raw(&self, method: &str, path: &str) -> Vec<u8> {
        let address = self.endpoint.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // It wants to see that somebody signed, and not who.
        let signed = "Authorization: AWS4-HMAC-SHA256 Credential=a/20300101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let head =
            format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{signed}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        answer
    }
}

/// The S3 server, on a port of its own.
async fn moto() -> (Child, u16) {
    let installed = std::env::var_os("PALISADE_MOTO").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testing/moto-5"),
        PathBuf::from,
    );
    assert!(
        installed.join("moto").is_dir(),
        "{} has no moto: `cargo xtask test` installs it",
        installed.display()
    );
    let mut server = Command::new("/usr/bin/python3")
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
        .env("PYTHONPATH", installed)
        .env("PYTHONUNBUFFERED", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.expect("readable") {
        if let Some((_, port)) = line.split_once("Running on http://127.0.0.1:") {
            let port = port.trim().parse().expect("a port");
            tokio::runtime::Handle::current()
                .spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (server, port);
        }
        said.push_str(&line);
    }
    unreachable!("moto did not start: {said}")
}

/// One request after the other to the server, or a 500 in its place.
async fn pass(listener: TcpListener, port: u16, failures_left: Arc<AtomicU32>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let fails = failures_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        tokio::runtime::Handle::current().spawn(async move {
            if fails {
                let _ = client.read(&mut [0; 4096]).await;
                let answer =
                    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = client.write_all(answer).await;
                return;
            }
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

/// The bucket as a server has it: through a proxy whose policy lets services go there and nowhere else.
fn bucket(folder: &Path, endpoint: &str) -> ShipTarget {
    let spec = BucketSpec {
        endpoint: endpoint.into(),
        name: BUCKET.into(),
        region: "us-east-1".into(),
        prefix: "acme/egress".into(),
        access_key: "an-access-key".to_owned().into(),
        secret_key: SECRET_KEY.to_owned().into(),
    };
    let services = vec![spec.service().expect("a URL")];
    let own =
        AuditLog::open_free(&folder.join("of-the-proxy"), &folder.join("anchors"), AuditSettings::default())
            .expect("a log");
    let proxy = Proxy::new(ProxyParts {
        policy: PolicySpec { services, ..PolicySpec::default() },
        resolver: Resolver::new("127.0.0.1:9".parse().expect("an address")).expect("a resolver"),
        audit: Arc::new(own),
        trust: Trust::load(&[]).expect("authorities"),
        credentials: Credentials::new(),
        vault: Arc::new(NoCredentials),
        settings: ProxySettings::default(),
    })
    .expect("a proxy");
    let door = proxy.door(Principal::Service, DoorLimits::default()).expect("a door");
    ShipTarget::Bucket(Box::new(Bucket::new(&spec, ProxyClient::new(door)).expect("a bucket")))
}

/// Records of refused connections, written by a proxy that has them to write.
pub(crate) async fn write(log: &AuditLog, count: usize) {
    for _ in 0..count {
        log.append(palisade_egress::Record::of_note("a test")).await.expect("written");
    }
}

/// A process that writes and ships; it is killed in the middle of whatever it does.
pub(crate) struct Killed(Child);

impl Killed {
    pub(crate) async fn start(world: &World) -> Self {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "shipping_process"])
            .env(FOLDER, world.folder.path())
            .env(ENDPOINT, &world.endpoint)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Self(child.expect("started"))
    }

    pub(crate) async fn wait_for_records(&mut self, audit: &Path, count: u64) {
        let written = || async {
            // Whole at every moment, while it is written, rotated and packed.
            let last = audit.exists().then(|| verify(audit).expect("a whole log").last_seq);
            (last >= Some(count)).then_some(())
        };
        wait_for("records", written).await;
    }

    pub(crate) async fn kill(&mut self) {
        self.0.kill().await.expect("killed");
    }
}

pub(crate) async fn write_and_ship_for_ever(settings: AuditSettings) {
    let variable = |name| std::env::var(name).expect("started by another test");
    let folder = PathBuf::from(variable(FOLDER));
    let log = Arc::new(AuditLog::open(&folder.join("audit"), settings).expect("a log"));
    let target = bucket(&folder, &variable(ENDPOINT));
    let shipping =
        palisade_egress::ship(log.clone(), target, Duration::from_millis(5), CancellationToken::new());
    let writing = async {
        loop {
            write(&log, 1).await;
        }
    };
    tokio::join!(shipping, writing);
}

//! A hostile tenant: it takes all that it can of one thing that tenants share, and goes on until the value is dropped. It
//! acts as the tenant of [`KEY`]; what its agents do comes from [`answer`], which the test's upstream asks first.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::server::{KEY, must};
use crate::upstream::{Answer, RecordedRequest, Step};
use crate::{Server, wait_for};

/// Archives that are asked for and not read: more than a usual pool has threads.
const ARCHIVES: usize = 530;
/// What each is made of, in bytes: far more than sockets hold, and nothing that packs.
const PACKED_BYTES: usize = 4 * 1024 * 1024;
const UPLOADS: usize = 100;
const CONNECTIONS: usize = 100;
/// Clients of each kind of request that is made over and over.
const CLIENTS: usize = 8;
const SESSIONS_BURNING: usize = 2;
/// Sessions that fill the lists.
const SESSIONS_LISTED: usize = 100;
const FILES_LISTED: usize = 5_000;
/// The kernel's least.
const SMALL_SOCKET_BYTES: u32 = 4 * 1024;

/// Says what a model does for a hostile message: what stands behind it is the command.
const RUN: &str = "attack by running: ";
/// Between two words of a model that talks without end.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
/// The model talks without end.
const TALK: &str = "attack by talking";

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Zip downloads that nobody reads.
    Archives,
    /// Uploads that never end.
    Uploads,
    /// Connections that say nothing.
    Connections,
    /// Sessions, made and ended as fast as it goes.
    Creates,
    /// Lists of many sessions, and large directories.
    Lists,
    /// Turns whose models talk without a pause.
    Events,
    /// Sandboxes that burn processors, fork, and flood their output.
    Processors,
    /// Sandboxes whose writers sync all they write.
    Disk,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Archives,
        Self::Uploads,
        Self::Connections,
        Self::Creates,
        Self::Lists,
        Self::Events,
        Self::Processors,
        Self::Disk,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Archives => "archives nobody reads",
            Self::Uploads => "uploads that never end",
            Self::Connections => "silent connections",
            Self::Creates => "sessions made and ended",
            Self::Lists => "long lists",
            Self::Events => "turns that talk",
            Self::Processors => "burning sandboxes",
            Self::Disk => "syncing sandboxes",
        }
    }
}

/// An attack that is under way.
pub struct Attack {
    /// Ended with the value, as the connections are.
    tasks: JoinSet<()>,
    sockets: Vec<TcpStream>,
    kept: Arc<Mutex<Vec<String>>>,
}

/// What a model says to the hostile tenant; `None` to anybody else.
pub fn answer(request: &RecordedRequest) -> Option<Answer> {
    let messages = request.json["messages"].as_array()?;
    let asked = messages.iter().rev().find(|message| message["role"] == "user")?["content"].as_str()?;
    if asked == TALK {
        let delta = json!({"choices": [{"index": 0, "delta": {"content": "talk ".repeat(100)}}]});
        let chunk = format!("data: {delta}\n\n").into();
        return Some(Answer::stream().step(Step::Repeat { chunk, every: PAUSE }));
    }
    let command = asked.strip_prefix(RUN)?;
    Some(Answer::tool_call("Bash", json!({"command": command, "timeout_ms": 600_000})))
}

impl Attack {
    /// Begins, and returns when it is under way.
    pub async fn begin(server: &Server, kind: Kind) -> Self {
        let mut attack = Self { tasks: JoinSet::new(), sockets: Vec::new(), kept: Arc::default() };
        match kind {
            Kind::Archives => attack.archives(server).await,
            Kind::Uploads => attack.uploads(server).await,
            Kind::Connections => attack.connections(server).await,
            Kind::Creates => attack.creates(server).await,
            Kind::Lists => attack.lists(server).await,
            Kind::Events => attack.events(server).await,
            Kind::Processors => attack.run(server, SESSIONS_BURNING, "burning", BURN).await,
            Kind::Disk => attack.run(server, 1, "syncing", SYNC).await,
        }
        attack
    }

    /// Sessions whose creation was acknowledged and that were not ended again.
    pub fn kept_sessions(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn archives(&mut self, server: &Server) {
        let session = server.session(json!({})).await;
        let folder = server.workspace().join("packed");
        must("making a folder", std::fs::create_dir_all(&folder));
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        });
        must(
            "writing a file",
            std::fs::write(folder.join("noise"), bytes.take(PACKED_BYTES).collect::<Vec<_>>()),
        );
        let get = format!("GET /v1/sessions/{session}/files?path=packed&archive=zip");
        for _ in 0..ARCHIVES {
            self.say(server, &get, "", b"").await;
        }
        self.wait_for_first_bytes().await;
    }

    async fn uploads(&mut self, server: &Server) {
        let session = server.session(json!({})).await;
        for number in 0..UPLOADS {
            let put = format!("PUT /v1/sessions/{session}/files/unfinished-{number}");
            self.say(server, &put, "Content-Length: 1000000\r\n", &[b'x'; 100_000]).await;
        }
    }

    async fn connections(&mut self, server: &Server) {
        for _ in 0..CONNECTIONS {
            self.sockets.push(connect(server).await);
        }
    }

    async fn creates(&mut self, server: &Server) {
        for _ in 0..CLIENTS {
            let (http, kept) = (Http::of(server), self.kept.clone());
            self.tasks.spawn(async move {
                for number in 0_usize.. {
                    let Some(session) = http.create().await else { continue };
                    if number.is_multiple_of(4) {
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(session);
                    } else {
                        http.delete(&session).await;
                    }
                }
            });
        }
        wait_for("sessions to be made", || async { (self.kept_sessions().len() >= CLIENTS).then_some(()) })
            .await;
    }

    async fn lists(&mut self, server: &Server) {
        let first = server.session(json!({})).await;
        let http = Http::of(server);
        for _ in 1..SESSIONS_LISTED {
            http.create().await;
        }
        let folder = server.workspace().join("many");
        must("making a folder", std::fs::create_dir_all(&folder));
        for number in 0..FILES_LISTED {
            must("making a file", std::fs::write(folder.join(number.to_string()), b""));
        }
        let done = Arc::new(tokio::sync::Semaphore::new(0));
        for _ in 0..CLIENTS {
            let paths = ["/v1/sessions".to_owned(), format!("/v1/sessions/{first}/files?path=many")];
            let (http, done) = (http.clone(), done.clone());
            self.tasks.spawn(async move {
                loop {
                    for path in &paths {
                        http.get(path).await;
                    }
                    done.add_permits(1);
                }
            });
        }
        must("waiting for lists", done.acquire().await.map(drop));
    }

    async fn events(&mut self, server: &Server) {
        let begun = Arc::new(tokio::sync::Semaphore::new(0));
        for _ in 0..CLIENTS {
            let (http, begun) = (Http::of(server), begun.clone());
            self.tasks.spawn(async move {
                let session = http.create_in_the_end().await;
                loop {
                    http.send(&session, TALK, |_| begun.add_permits(1)).await;
                }
            });
        }
        must("waiting for turns", begun.acquire_many(CLIENTS as u32).await.map(drop));
    }

    /// Sessions whose sandboxes run the command, which makes a file when it has begun.
    async fn run(&mut self, server: &Server, sessions: usize, mark: &str, command: &str) {
        for number in 0..sessions {
            let http = Http::of(server);
            let message = format!("{RUN}touch {mark}-{number}; mkdir -p {mark}.d; {command}");
            self.tasks.spawn(async move {
                let session = http.create_in_the_end().await;
                loop {
                    http.send(&session, &message, |_| {}).await;
                }
            });
        }
        let has_begun = |number: usize| server.workspace().join(format!("{mark}-{number}")).exists();
        wait_for("the sandboxes to run", || async { (0..sessions).all(has_begun).then_some(()) }).await;
    }

    /// Sends a request, whole or not, and reads nothing of the answer.
    async fn say(&mut self, server: &Server, request: &str, headers: &str, body: &[u8]) {
        let mut stream = connect(server).await;
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{headers}\r\n");
        // A server that refuses may close before all was said.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(body).await;
        self.sockets.push(stream);
    }

    async fn wait_for_first_bytes(&self) {
        for stream in self.sockets.iter().take(1) {
            must("waiting for an answer", stream.peek(&mut [0]).await);
        }
    }
}

const BURN: &str = "burn() { while :; do :; done; }; for i in 1 2 3 4; do burn & done; bomb() { sleep 60 & bomb | bomb & }; bomb; yes";
const SYNC: &str = "for i in 0 1 2 3 4 5 6 7 8 9; do (while :; do \
     dd if=/dev/zero of=syncing.d/$i bs=64k count=16 conv=fsync status=none; done) & done; wait";

async fn connect(server: &Server) -> TcpStream {
    let address: SocketAddr =
        must("reading the server's address", server.url.trim_start_matches("http://").parse());
    let socket = must("making a socket", TcpSocket::new_v4());
    must("making it small", socket.set_recv_buffer_size(SMALL_SOCKET_BYTES));
    must("connecting", socket.connect(address).await)
}

/// A client that goes on whatever it is answered.
#[derive(Clone)]
struct Http {
    client: Client,
    url: String,
}

impl Http {
    fn of(server: &Server) -> Self {
        Self { client: Client::new(), url: server.url.clone() }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<reqwest::Response> {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(KEY);
        let request = body.iter().fold(request, |request, body| request.json(body));
        let response = request.send().await.ok().filter(|response| response.status().is_success());
        if response.is_none() {
            // It would be asked again at once, for ever.
            tokio::task::yield_now().await;
        }
        response
    }

    async fn create(&self) -> Option<String> {
        let response = self.call(Method::POST, "/v1/sessions", Some(json!({}))).await?;
        let record: Value = response.json().await.ok()?;
        Some(record["id"].as_str()?.to_owned())
    }

    async fn create_in_the_end(&self) -> String {
        loop {
            if let Some(session) = self.create().await {
                return session;
            }
        }
    }

    async fn delete(&self, session: &str) {
        self.call(Method::DELETE, &format!("/v1/sessions/{session}"), None).await;
    }

    async fn get(&self, path: &str) {
        if let Some(response) = self.call(Method::GET, path, None).await {
            // What was not read is no list.
            let _ = response.bytes().await;
        }
    }

    /// Sends a message and reads the turn to its end.
    async fn send(&self, session: &str, message: &str, begun: impl FnOnce(())) {
        let (path, body) = (format!("/v1/sessions/{session}/messages"), json!({"message": message}));
        let Some(mut response) = self.call(Method::POST, &path, Some(body)).await else { return };
        begun(());
        while let Ok(Some(_)) = response.chunk().await {}
    }
}

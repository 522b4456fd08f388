//! A whole server: the real binary, with a folder and a port of its own, two tenants and the scripted upstream
//! behind both. Ends with the value.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::stream::TurnStream;
use crate::upstream::ScriptedUpstream;

/// The tenant that tests act as.
pub const KEY: &str = "pk_acme_0123456789abcdef0123456789abcdef";
/// The tenant that must see nothing of it.
pub const OTHER_KEY: &str = "pk_other_0123456789abcdef0123456789abcdef";

/// What that tenant can spend at first; a token, of whatever kind, costs it [`CREDITS_PER_TOKEN`].
pub const CREDITS: u32 = 1000;
/// $1 for a million tokens, $0.01 for a credit.
pub const CREDITS_PER_TOKEN: f64 = 0.0001;

/// Names and values.
type Environment = Vec<(String, String)>;

/// A running server.
pub struct Server {
    /// `http://127.0.0.1:<port>`.
    pub url: String,
    /// What it was started with.
    pub folder: Arc<tempfile::TempDir>,
    binary: PathBuf,
    /// Beside what every server here gets.
    environment: Environment,
    child: Child,
    client: Client,
}

impl Server {
    /// Starts `binary` with the upstream behind the model `pokee-isaac`; `more` is added to its configuration.
    ///
    /// # Panics
    /// When it does not come up; its log is printed.
    pub async fn start(binary: &str, upstream: &ScriptedUpstream, more: &str) -> Self {
        Self::start_in(binary, upstream, more, &[]).await
    }

    /// The same, with more in its environment.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub async fn start_in(
        binary: &str,
        upstream: &ScriptedUpstream,
        more: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let config = format!(
            r#"
            [[upstream]]
            name = "scripted"
            dialect = "openai-chat"
            base_url = "{}"
            [model."pokee-isaac"]
            upstream = "scripted"
            upstream_model = "scripted-model"
            price = {{ input = 1.0, output = 1.0 }}
            [[tenant]]
            name = "acme"
            tokens = [{{ id = "default", key = "env:ACME_KEY" }}]
            credits = {{ mode = "soft", balance = {CREDITS} }}
            client_model_selection = true
            upload_mb = 1
            limits = {{ concurrent_sessions = 5000, turns_per_hour = 0, tokens_per_hour = 0, turns_per_day = 0, tokens_per_day = 0 }}
            [[tenant]]
            name = "other"
            tokens = [{{ id = "default", key = "env:OTHER_KEY" }}]
            {more}
            "#,
            upstream.base_url()
        );
        Self::launched(binary, &config, environment).await
    }

    /// Starts `binary` with this configuration, which names no address and no folder.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub async fn with_config(binary: &str, config: &str) -> Self {
        Self::launched(binary, config, &[]).await
    }

    async fn launched(binary: &str, config: &str, environment: &[(&str, &str)]) -> Self {
        let folder = Arc::new(new_folder());
        let hand = hand();
        let sandbox = if config.contains("[sandbox]") {
            String::new()
        } else {
            format!("[sandbox]\nhand = {hand:?}\n")
        };
        let config = format!("{config}\n{sandbox}");
        must("writing the configuration", std::fs::write(folder.path().join("palisade.toml"), config));
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (child, url) = launch(Path::new(binary), folder.path(), &environment).await;
        Self { url, folder, binary: binary.into(), environment, child, client: Client::new() }
    }

    /// Another server with the same configuration and the same folder.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub async fn beside(&self) -> Self {
        let (folder, binary) = (self.folder.clone(), self.binary.clone());
        let environment = self.environment.clone();
        let (child, url) = launch(&binary, folder.path(), &environment).await;
        Self { url, folder, binary, environment, child, client: Client::new() }
    }

    /// Kills the server with SIGKILL and starts it again on the same folder.
    pub async fn kill_and_restart(&mut self) {
        self.kill().await;
        self.restart().await;
    }

    /// Kills the server with SIGKILL; returns when it is gone.
    pub async fn kill(&mut self) {
        must("killing the server", self.child.kill().await);
    }

    /// Starts it again on the same folder and kills it after this time, whether or not it listens by then.
    pub async fn restart_and_kill_after(&mut self, time: Duration) {
        self.child = spawn(&self.binary, self.folder.path(), &self.environment);
        tokio::time::sleep(time).await;
        self.kill().await;
    }

    /// Starts it again on the same folder, once it has ended.
    pub async fn restart(&mut self) {
        (self.child, self.url) = launch(&self.binary, self.folder.path(), &self.environment).await;
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        if let Some(pid) = self.pid() {
            must("sending SIGTERM", rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        }
        must("waiting for the server", self.child.wait().await)
    }

    /// Its process.
    pub fn pid(&self) -> Option<rustix::process::Pid> {
        self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
    }

    /// The tenant's workspace on the disk.
    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("data/tenants/acme/workspace")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log.jsonl")).unwrap_or_default()
    }

    /// A request as the tenant.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(KEY)
    }

    /// A request as the other tenant.
    pub fn as_other(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(OTHER_KEY)
    }

    /// A request without a key.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// GET, as JSON.
    pub async fn get(&self, path: &str) -> Value {
        self.json(self.request(Method::GET, path)).await
    }

    /// Sends, and expects JSON with a status below 300.
    ///
    /// # Panics
    /// When it gets anything else.
    #[expect(clippy::panic, reason = "a test tool")]
    pub async fn json(&self, request: RequestBuilder) -> Value {
        let response = must("sending a request", request.send().await);
        let status = response.status();
        let text = must("reading an answer", response.text().await);
        if !status.is_success() {
            panic!("{status}: {text}");
        }
        must("reading JSON", serde_json::from_str(&text))
    }

    /// Creates a session; its id.
    pub async fn session(&self, body: Value) -> String {
        let record = self.json(self.request(Method::POST, "/v1/sessions").json(&body)).await;
        record["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Sends a message; the turn's stream.
    pub async fn send(&self, session: &str, message: &str) -> TurnStream {
        let request = self.request(Method::POST, &format!("/v1/sessions/{session}/messages"));
        let response = must("sending a message", request.json(&json!({"message": message})).send().await);
        TurnStream::of(response).await
    }

    /// Sends, and expects an error in the contract's shape; its status and code.
    ///
    /// # Panics
    /// When it gets anything else.
    pub async fn refused(&self, request: RequestBuilder) -> (u16, String) {
        let response = must("sending a request", request.send().await);
        let status = response.status();
        let text = must("reading an answer", response.text().await);
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        assert!(status.is_client_error() || status.is_server_error(), "{status}: {text}");
        assert_eq!(body["error"].as_str(), status.canonical_reason(), "{text}");
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
        (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "a failing test wants to show this")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
        // The child was told to die with its handle.
    }
}

/// The sandbox's executor: a static binary, built by `cargo xtask build`.
///
/// # Panics
/// When it was not built.
#[expect(clippy::panic, reason = "a test tool")]
pub fn hand() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/hand/palisade-hand");
    let hand = std::env::var_os("PALISADE_HAND").map_or(built, PathBuf::from);
    if !hand.is_file() {
        panic!("{} is not there: run `cargo xtask build` once, or set PALISADE_HAND", hand.display());
    }
    hand
}

/// A folder below /tmp that the server's own user can enter.
fn new_folder() -> tempfile::TempDir {
    let folder =
        must("making a folder", tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp"));
    must("opening a folder", std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)));
    folder
}

fn spawn(binary: &Path, folder: &Path, environment: &Environment) -> Child {
    let log = must(
        "opening the log",
        std::fs::File::options().create(true).append(true).open(folder.join("log.jsonl")),
    );
    must(
        "starting the server",
        Command::new(binary)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(folder.join("palisade.toml"))
            .arg("--data-dir")
            .arg(folder.join("data"))
            .envs(environment.iter().cloned())
            .env("ACME_KEY", KEY)
            .env("OTHER_KEY", OTHER_KEY)
            .env("SERVER_SECRET", "never-inside-a-sandbox")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn(),
    )
}

#[expect(clippy::panic, reason = "a test tool")]
async fn launch(binary: &Path, folder: &Path, environment: &Environment) -> (Child, String) {
    let mut child = spawn(binary, folder, environment);
    let Some(stdout) = child.stdout.take() else { panic!("the server has no standard output") };
    let mut lines = BufReader::new(stdout).lines();
    let url = loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                if let Some(url) = line.strip_prefix("listening on ") {
                    break url.to_owned();
                }
            }
            _ => panic!(
                "the server did not start:\n{}",
                std::fs::read_to_string(folder.join("log.jsonl")).unwrap_or_default()
            ),
        }
    };
    // Whatever else it prints must not fill the pipe.
    tokio::runtime::Handle::current()
        .spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, url)
}

#[expect(clippy::panic, reason = "a test tool")]
pub(crate) fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

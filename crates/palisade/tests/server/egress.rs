//! One door out, seen from outside: what a sandbox reaches, what the log says of it, a proxy of its own process, a new policy, and a
//! server that has no route of its own.

use std::path::Path;
use std::process::Stdio;

use palisade_testkit::origin::{Manner, Origin};
use palisade_testkit::resolver::FakeResolver;
use palisade_testkit::stream::TurnStream;
use palisade_testkit::tls_origin::TlsOrigin;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{start, start_with};

/// A name server, an origin behind two names, and the configuration that leads there.
struct Outside {
    resolver: FakeResolver,
    origin: Origin,
}

impl Outside {
    async fn new() -> Self {
        let (resolver, origin) =
            (FakeResolver::start().await.unwrap(), answering("hello from outside").await);
        for name in ["allowed.test", "denied.test", "added.test"] {
            resolver.set_addresses(name, &["127.0.0.1"]);
        }
        Self { resolver, origin }
    }

    /// `[egress]` and the second tenant's own list; the first tenant's stands before it.
    fn config(&self, egress: &str, of_other: &str) -> String {
        format!(
            "{of_other}\n[egress]\nresolver = \"{}\"\nallow_addresses = [\"127.0.0.0/8\"]\n{egress}\n",
            self.resolver.address()
        )
    }

    fn allow(&self, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| format!("{name}:{}", self.origin.port())).collect();
        format!("[tenant.egress]\nallow = {names:?}")
    }

    fn curl(&self, name: &str) -> String {
        format!("curl -sS --max-time 20 http://{name}:{}/path?secret=1", self.origin.port())
    }
}

async fn answering(body: &str) -> Origin {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    Origin::start(Manner::Answer(answer.into_bytes())).await.unwrap()
}

/// What a command says in a turn of this tenant.
async fn bash_as_other(server: &Server, upstream: &ScriptedUpstream, command: &str) -> String {
    let session = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let path = format!("/v1/sessions/{}/messages", session["id"].as_str().unwrap());
    upstream.push(Answer::tool_call("Bash", json!({"command": command})));
    upstream.push(Answer::text("done"));
    let message = server.as_other(Method::POST, &path).json(&json!({"message": "go"}));
    let events = TurnStream::of(message.send().await.unwrap()).await.rest().await;
    result_of(&events)
}

async fn bash(server: &Server, upstream: &ScriptedUpstream, command: &str) -> String {
    let id = server.session(json!({})).await;
    upstream.push(Answer::tool_call("Bash", json!({"command": command})));
    upstream.push(Answer::text("done"));
    result_of(&server.send(&id, "go").await.rest().await)
}

fn result_of(events: &[palisade_testkit::stream::TurnEvent]) -> String {
    let result = events.iter().find(|event| event.kind == "tool_result").unwrap();
    result.data["content"].as_str().unwrap().to_owned()
}

/// The records of one log.
fn records(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("current.jsonl")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn log(server: &Server) -> Vec<Value> {
    records(&server.folder.path().join("data/audit"))
}

/// C09, EG-J3: what is allowed is reached and recorded, the rest is refused and recorded; an upstream's host is the router's alone, and
/// so is the server itself.
#[tokio::test]
async fn a_sandbox_reaches_what_its_tenant_allows_and_nothing_else() {
    let outside = Outside::new().await;
    let (server, upstream) = start_with(&outside.config("", &outside.allow(&["allowed.test"]))).await;
    let said = bash_as_other(&server, &upstream, &outside.curl("allowed.test")).await;
    assert_eq!(said, "hello from outside");
    let said = bash_as_other(&server, &upstream, &outside.curl("denied.test")).await;
    assert!(said.contains("egress.not-allowed"), "{said}");
    assert!(!outside.resolver.questions().iter().any(|name| name.contains("denied")), "it was looked up");
    // The first tenant has no list: the public internet, of which neither of these is a part.
    for (target, reason) in [
        (upstream.base_url(), "egress.router-only"),
        (format!("{}/health", server.url), "egress.router-only"),
        ("http://169.254.169.254/latest".into(), "egress.literal-refused"),
        ("http://localhost:1/".into(), "egress.dial-failed"),
    ] {
        let said = bash(&server, &upstream, &format!("curl -sS --noproxy '' --max-time 20 {target}")).await;
        assert!(said.contains(reason), "{target}: {said}");
    }
    let all = log(&server);
    let of = |principal: &str, kind: &str, decision: &str| {
        all.iter()
            .filter(|it| it["principal"] == principal && it["kind"] == kind && it["decision"] == decision)
            .count()
    };
    assert_eq!(of("router", "open", "allow"), of("router", "close", "allow"), "{all:#?}");
    assert_eq!(of("router", "open", "allow"), upstream.requests().len(), "every model call is in the log");
    let opened = all.iter().find(|it| it["principal"] == "session" && it["kind"] == "close").unwrap();
    assert_eq!((&opened["tenant"], &opened["host"]), (&json!("other"), &json!("allowed.test")));
    assert_eq!((&opened["status"], &opened["path"]), (&json!(200), &json!("/path")), "no query");
    assert_eq!(of("session", "refused", "refuse"), 4, "{all:#?}");
}

/// The whole table of the offline tenant's page, on two tenants of one server.
#[tokio::test]
async fn an_offline_tenant_differs_from_a_standard_one_as_its_page_says() {
    let outside = Outside::new().await;
    let offline = "mode = \"offline\"\nclient_model_selection = true";
    let (server, upstream) = start_with(&outside.config("", offline)).await;
    // Public egress: open, and denied.
    for command in [outside.curl("allowed.test"), "curl -sS --max-time 20 https://allowed.test/".into()] {
        let before = outside.resolver.questions().len();
        let said = bash_as_other(&server, &upstream, &command).await;
        assert!(said.contains("egress.offline") || said.contains("403"), "{said}");
        assert_eq!(outside.resolver.questions().len(), before, "nothing left for it");
    }
    let said = bash(&server, &upstream, &outside.curl("allowed.test")).await;
    assert_eq!(said, "hello from outside");
    // Tools and skills as the model is told of them.
    let requests = upstream.requests();
    let (offline, standard) = (&requests[0].json, &requests[requests.len() - 1].json);
    let tools = |request: &Value| {
        let tools = request["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(tools(standard).contains(&"WebFetch".into()), "{:?}", tools(standard));
    assert!(!tools(offline).iter().any(|tool| tool.starts_with("Web")), "{:?}", tools(offline));
    let bash_of = |request: &Value| {
        let tools = request["tools"].as_array().unwrap();
        tools.iter().find(|tool| tool["function"]["name"] == "Bash").unwrap()["function"]["description"]
            .to_string()
    };
    assert!(bash_of(offline).contains("There is no network"), "{}", bash_of(offline));
    let builders = ["docx-builder", "pdf-builder", "pokee-resume-builder", "pptx-builder", "xlsx-builder"];
    let listed = offline["messages"][0]["content"].as_str().unwrap();
    let skills = listed.split_once("<skills>").unwrap().1.split_once("</skills>").unwrap().0;
    for skill in skills.lines().filter_map(|line| line.strip_prefix("- ")?.split(':').next()) {
        assert!(builders.contains(&skill), "{skill} is no local builder");
    }
    // The same contract on both: files, scopes, streams, keys, resume and cancel.
    for key in ["mine", "theirs"] {
        let request = |method: Method, path: &str| match key {
            "mine" => server.request(method, path),
            _ => server.as_other(method, path),
        };
        let scope = json!({"file_access": {"read": ["in"], "write": ["out"]}});
        let session = server.json(request(Method::POST, "/v1/sessions").json(&scope)).await;
        let id = session["id"].as_str().unwrap();
        let file = |path: &str| format!("/v1/sessions/{id}/files/{path}");
        server.json(request(Method::PUT, &file("out/a.txt")).body(key)).await;
        let outside_scope = request(Method::PUT, &file("elsewhere/a.txt")).body("x");
        assert_eq!(server.refused(outside_scope).await.0, 403);
        upstream.push(Answer::text("hi"));
        let message = || {
            let path = format!("/v1/sessions/{id}/messages");
            request(Method::POST, &path).header("Idempotency-Key", "k").json(&json!({"message": "go"}))
        };
        let mut first = TurnStream::of(message().send().await.unwrap()).await;
        let events = first.rest().await;
        let again = TurnStream::of(message().send().await.unwrap()).await.rest().await;
        let texts = |events: &[palisade_testkit::stream::TurnEvent]| {
            events.iter().map(|event| event.data.clone()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&events), texts(&again), "the same turn again");
        let path = format!("/v1/sessions/{id}/responses/{}/events?last_event_id=0", first.turn);
        let rest = TurnStream::of(request(Method::GET, &path).send().await.unwrap()).await.rest().await;
        assert_eq!(texts(&rest), texts(&events)[1..]);
        let path = format!("/v1/sessions/{id}/responses/{}/cancel", first.turn);
        let cancelled = request(Method::POST, &path).send().await.unwrap();
        assert_eq!(cancelled.status(), 200, "already complete");
    }
}

/// Two endpoints on one server, by their names: each takes its own tenant's keys and no other's.
#[tokio::test]
async fn a_tenants_own_endpoint_takes_its_own_keys() {
    let (server, _upstream) = start_with("hosts = [\"other-offline.example\"]").await;
    let status = async |key: &str, host: &str| {
        let request = server.anonymous(Method::GET, "/v1/sessions").bearer_auth(key).header("host", host);
        request.send().await.unwrap().status().as_u16()
    };
    let (mine, theirs) = (palisade_testkit::server::KEY, palisade_testkit::server::OTHER_KEY);
    for host in ["other-offline.example", "OTHER-offline.example.", "other-offline.example:8443"] {
        assert_eq!((status(mine, host).await, status(theirs, host).await), (401, 200), "{host}");
    }
    for host in ["elsewhere.example", "127.0.0.1", "[::1]:80"] {
        assert_eq!((status(mine, host).await, status(theirs, host).await), (200, 200), "{host}");
    }
}

/// EG-J4: SIGHUP reads the policy again: tunnels to what is gone end, others go on, and a bad file changes nothing.
#[tokio::test]
async fn a_new_policy_takes_effect_at_once_and_a_bad_one_never() {
    let (outside, silent) = (Outside::new().await, Origin::start(Manner::Silent).await.unwrap());
    let denied = format!("denied.test:{}", silent.port());
    let list = outside.allow(&["allowed.test"]).replacen("= [", &format!("= [\"{denied}\", "), 1);
    let (server, upstream) = start_with(&outside.config("", &list)).await;
    let file = server.folder.path().join("palisade.toml");
    let hold = |name: &str| {
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://{name}:{port}/ HTTP/1.1\\r\\nHost: {name}:{port}\\r\\n\
             Content-Length: 5\\r\\n\\r\\n' >&3; cat <&3; echo over",
            port = silent.port()
        )
    };
    let session = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let path = format!("/v1/sessions/{}/messages", session["id"].as_str().unwrap());
    upstream.push(Answer::tool_call("Bash", json!({"command": hold("denied.test")})));
    let message = server.as_other(Method::POST, &path).json(&json!({"message": "go"}));
    let mut held = TurnStream::of(message.send().await.unwrap()).await;
    silent.wait_for_text("Host: denied.test").await;

    let good = std::fs::read_to_string(&file).unwrap();
    let reload = async |text: &str, said: &str| {
        let before = server.log().matches(said).count();
        std::fs::write(&file, text).unwrap();
        kill_process(server.pid().unwrap(), Signal::HUP).unwrap();
        wait_for(said, async || (server.log().matches(said).count() > before).then_some(())).await;
    };
    let (allowed, denied, added) = (
        format!("\"allowed.test:{}\"", outside.origin.port()),
        format!("\"{denied}\""),
        format!("\"added.test:{}\"", outside.origin.port()),
    );
    reload(&good.replace(&allowed, "\"*\""), "the old one stays").await;
    assert_eq!(bash_as_other(&server, &upstream, &outside.curl("allowed.test")).await, "hello from outside");
    upstream.push(Answer::text("done"));
    reload(&good.replace(&denied, &added), "was read again\"").await;
    let events = held.rest().await;
    assert!(result_of(&events).contains("over"), "the connection is over");
    let said = bash_as_other(&server, &upstream, &outside.curl("denied.test")).await;
    assert!(said.contains("egress.not-allowed"), "{said}");
    assert_eq!(bash_as_other(&server, &upstream, &outside.curl("added.test")).await, "hello from outside");
    assert_eq!(bash_as_other(&server, &upstream, &outside.curl("allowed.test")).await, "hello from outside");
    let ended = |it: &&Value| it["reason"] == "policy-changed" && it["host"] == "denied.test";
    assert_eq!(log(&server).iter().filter(ended).count(), 1);
}

/// The proxy as a process of its own; ends with the value.
struct Proxy {
    child: Child,
    folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts it with this configuration; `FOLDER` in it is its own.
    async fn start(config: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::write(
            folder.path().join("egress.toml"),
            config.replace("FOLDER", &folder.path().to_string_lossy()),
        )
        .unwrap();
        let child = Self::spawn(folder.path());
        let mut proxy = Self { child, folder };
        proxy.wait().await;
        proxy
    }

    fn spawn(folder: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log.jsonl")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_palisade"))
            .args(["egress", "--config"])
            .arg(folder.join("egress.toml"))
            .arg("--data-dir")
            .arg(folder.join("data"))
            .envs([
                ("EGRESS_KEY", KEY),
                ("UPSTREAM_KEY", "sk-of-the-proxy"),
                ("ACME_KEY", palisade_testkit::server::KEY),
            ])
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn wait(&mut self) {
        let socket = self.folder.path().join("egress.sock");
        wait_for("the proxy's socket", async || socket.exists().then_some(())).await;
    }

    fn socket(&self) -> String {
        format!("unix:{}/egress.sock", self.folder.path().display())
    }

    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
        std::fs::remove_file(self.folder.path().join("egress.sock")).unwrap();
    }

    async fn restart(&mut self) {
        self.child = Self::spawn(self.folder.path());
        self.wait().await;
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef-between-the-two";

/// What both sides are told: one upstream whose key only the proxy has, one tenant with one host.
fn split(upstream: &ScriptedUpstream, outside: &Outside, egress: &str) -> String {
    format!(
        r#"
        [[upstream]]
        name = "scripted"
        dialect = "openai-chat"
        base_url = "{}"
        api_key = "env:UPSTREAM_KEY"
        [model."pokee-isaac"]
        upstream = "scripted"
        upstream_model = "scripted-model"
        [[tenant]]
        name = "acme"
        tokens = [{{ id = "default", key = "env:ACME_KEY" }}]
        {}
        [egress]
        key = "env:EGRESS_KEY"
        {egress}
        "#,
        upstream.base_url(),
        outside.allow(&["allowed.test"]),
    )
}

fn proxy_config(upstream: &ScriptedUpstream, outside: &Outside) -> String {
    let egress = format!(
        "listen = \"unix:FOLDER/egress.sock\"\nresolver = \"{}\"\nallow_addresses = [\"127.0.0.0/8\"]",
        outside.resolver.address()
    );
    split(upstream, outside, &egress)
}

/// Decision 32: the proxy has the keys, the policy and the log; the server has a way to it and nothing else. Without it nothing leaves, and
/// nothing is lost.
#[tokio::test]
async fn the_proxy_may_be_a_process_of_its_own() {
    let (outside, upstream) = (Outside::new().await, ScriptedUpstream::start().await.unwrap());
    let mut proxy = Proxy::start(&proxy_config(&upstream, &outside)).await;
    let config = split(&upstream, &outside, &format!("via = \"{}\"", proxy.socket()));
    let config =
        config.replace("env:EGRESS_KEY", &format!("file:{}/egress.key", proxy.folder.path().display()));
    std::fs::write(proxy.folder.path().join("egress.key"), KEY).unwrap();
    let server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), &config).await;
    assert_eq!(bash(&server, &upstream, &outside.curl("allowed.test")).await, "hello from outside");
    let said = bash(&server, &upstream, &outside.curl("denied.test")).await;
    assert!(said.contains("egress.not-allowed"), "{said}");
    assert_eq!(upstream.requests()[0].header("authorization"), "Bearer sk-of-the-proxy");
    assert!(!server.folder.path().join("data/audit").exists(), "the log is the proxy's");
    let audit = proxy.folder.path().join("data/audit");
    let kinds = |principal: &str| records(&audit).iter().filter(|it| it["principal"] == principal).count();
    assert!(kinds("router") >= 8 && kinds("session") >= 3, "{:#?}", records(&audit));
    assert_eq!(server.get("/ready").await["parts"]["egress"]["ok"], true);

    proxy.kill().await;
    let ready = server.request(Method::GET, "/ready").send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let id = server.session(json!({})).await;
    let events = server.send(&id, "hi").await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.error", "no way to the model");
    proxy.restart().await;
    upstream.push(Answer::text("back"));
    let events = server.send(&id, "again").await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed", "{events:?}");
    assert_eq!(bash(&server, &upstream, &outside.curl("allowed.test")).await, "hello from outside");
}

const SECRET: &str = "sk-live-z9Y8x7W6v5U4";

/// The server's vault, attached by the proxy of another process: while it is lent, after either was started again, and not without it.
#[tokio::test]
async fn a_proxy_of_its_own_borrows_the_vault() {
    let told = |request: &str| {
        let told = request.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization"));
        let body = format!("you said {}", told.unwrap_or("nothing"));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let (outside, upstream) = (Outside::new().await, ScriptedUpstream::start().await.unwrap());
    let origin = TlsOrigin::start(&["api.test"], told).await.unwrap();
    outside.resolver.set_addresses("api.test", &["127.0.0.1"]);
    let authorities = tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(authorities.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let authority = authorities.path().join("origin.pem");
    std::fs::write(&authority, origin.authority_pem()).unwrap();
    let allow = outside.allow(&["allowed.test"]);
    let allow_both = allow.replace("allow = [", &format!("allow = [\"api.test:{}\", ", origin.port()));
    let config = proxy_config(&upstream, &outside).replace(&allow, &allow_both);
    let mut proxy = Proxy::start(&format!("{config}\nca_files = [{authority:?}]\n")).await;
    let config = split(&upstream, &outside, &format!("via = \"{}\"", proxy.socket()));
    let config =
        config.replace("env:EGRESS_KEY", &format!("file:{}/egress.key", proxy.folder.path().display()));
    std::fs::write(proxy.folder.path().join("egress.key"), KEY).unwrap();
    let mut server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), &config).await;
    let ask = format!("curl -sS --max-time 20 https://api.test:{}/", origin.port());
    let asked = async |server: &Server| bash(server, &upstream, &ask).await;

    let stored = json!({
        "value": SECRET, "allowed_hosts": [format!("api.test:{}", origin.port())], "injection": {"type": "bearer"},
    });
    let put = server.request(Method::PUT, "/v1/vault/thing").json(&stored).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let attached = |said: &str| {
        let got = origin.requests().pop().unwrap_or_default();
        said.starts_with("you said Authorization: Bearer [redacted:thing]") && got.contains(SECRET)
    };
    let said = asked(&server).await;
    assert!(attached(&said), "{said}");

    proxy.kill().await;
    proxy.restart().await;
    let said = asked(&server).await;
    assert!(attached(&said), "after the proxy was started again: {said}");

    server.kill().await;
    server.restart().await;
    let said = asked(&server).await;
    assert!(attached(&said), "after the server was started again: {said}");

    let deleted = server.request(Method::DELETE, "/v1/vault/thing").send().await.unwrap();
    assert!(deleted.status().is_success());
    // Nobody opens this TLS any more, and its authority is not one of the sandbox's.
    let said = asked(&server).await;
    assert!(said.contains("certificate"), "{said}");
    let found = Command::new("grep").args(["-rl", SECRET]).arg(proxy.folder.path()).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "what was lent is nowhere on the proxy's disk");
}

/// A network of the server's own, in which there is a loopback and nothing else; gone with the value.
struct EmptyNetwork(String);

impl EmptyNetwork {
    /// None where one cannot be made.
    async fn new() -> Option<Self> {
        let name = format!("palisade-test-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status().await.ok()?;
        made.success().then_some(())?;
        let network = Self(name);
        let up = network.run("ip", &["link", "set", "lo", "up"]).await;
        up.0.then_some(network)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]).kill_on_drop(true);
        command
    }

    async fn run(&self, program: &str, args: &[&str]) -> (bool, String) {
        let output = self.command(program).args(args).output().await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for EmptyNetwork {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The proxy alone has a route: the server stands in a network with nothing in it, and everything works.
#[tokio::test]
async fn a_server_without_a_route_works_through_its_proxy() {
    let Some(network) = EmptyNetwork::new().await else {
        eprintln!(
            "SKIPPED a_server_without_a_route_works_through_its_proxy: no network namespace can be made here"
        );
        return;
    };
    let (outside, upstream) = (Outside::new().await, ScriptedUpstream::start().await.unwrap());
    let proxy = Proxy::start(&proxy_config(&upstream, &outside)).await;
    let folder = &proxy.folder.path().to_string_lossy().into_owned();
    let hand = palisade_testkit::server::hand();
    let config =
        split(&upstream, &outside, &format!("via = \"{}\"\n[sandbox]\nhand = {hand:?}", proxy.socket()));
    std::fs::write(format!("{folder}/server.toml"), config).unwrap();
    let log = std::fs::File::create(format!("{folder}/server.jsonl")).unwrap();
    let mut server = network.command(env!("CARGO_BIN_EXE_palisade"));
    server.args(["serve", "--listen", "127.0.0.1:8080", "--config", &format!("{folder}/server.toml")]);
    server.args(["--data-dir", &format!("{folder}/served")]).stderr(log).stdout(Stdio::null());
    server.envs([("EGRESS_KEY", KEY), ("ACME_KEY", palisade_testkit::server::KEY)]);
    let _server = server.spawn().unwrap();
    let ask = async |path: &str, body: &str| {
        let url = format!("http://127.0.0.1:8080{path}");
        let key = format!("Authorization: Bearer {}", palisade_testkit::server::KEY);
        let mut args = vec!["-sSN", "--max-time", "60", "-H", &key, &url];
        if !body.is_empty() {
            args.extend(["-d", body]);
        }
        network.run("curl", &args).await
    };
    wait_for("the server", async || ask("/health", "").await.0.then_some(())).await;
    // Nothing of the outside is there by any other way.
    let (reached, _) = network.run("curl", &["-sS", "--max-time", "5", &upstream.base_url()]).await;
    assert!(!reached);
    let session: Value = serde_json::from_str(&ask("/v1/sessions", "{}").await.1).unwrap();
    upstream.push(Answer::tool_call("Bash", json!({"command": outside.curl("allowed.test")})));
    upstream.push(Answer::text("done"));
    let path = format!("/v1/sessions/{}/messages", session["id"].as_str().unwrap());
    let (_, stream) = ask(&path, r#"{"message":"go"}"#).await;
    assert!(stream.contains("hello from outside") && stream.contains("event: message.completed"), "{stream}");
}

/// WebFetch goes the session's way, and shows a page as text.
#[tokio::test]
async fn a_page_is_fetched_through_the_door() {
    let (outside, page) = (
        Outside::new().await,
        "<html><title>t</title><h1>Head</h1><script>bad()</script><p>One &amp; two</p>",
    );
    let html =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let origin = Origin::start(Manner::Answer(html.into_bytes())).await.unwrap();
    let (server, upstream) = start_with(&outside.config("", "")).await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::tool_call(
        "WebFetch",
        json!({"url": format!("http://allowed.test:{}/", origin.port())}),
    ));
    upstream.push(Answer::tool_call("WebFetch", json!({"url": "http://10.0.0.1/"})));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "go").await.rest().await;
    let results: Vec<&Value> =
        events.iter().filter(|event| event.kind == "tool_result").map(|event| &event.data).collect();
    let shown = results[0]["content"].as_str().unwrap();
    assert!(shown.contains("200 OK") && shown.contains("# Head") && shown.contains("One & two"), "{shown}");
    assert!(!shown.contains("bad()"), "{shown}");
    assert_eq!(results[1]["is_error"], true);
    assert!(results[1]["content"].as_str().unwrap().contains("egress.literal-refused"), "{}", results[1]);
}

/// The log is read where it lies: whole or not, and what was refused; copies go where the operator wants them.
#[tokio::test]
async fn an_operator_reads_and_checks_the_log() {
    let outside = Outside::new().await;
    let copies = tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(copies.path(), Some(10001), Some(10001)).unwrap_or_default();
    let ship = format!("[egress.ship]\nfolder = {:?}\nevery_s = 1", copies.path());
    let (mut server, upstream) = start_with(&outside.config(&ship, &outside.allow(&["allowed.test"]))).await;
    bash_as_other(&server, &upstream, &outside.curl("allowed.test")).await;
    bash_as_other(&server, &upstream, &outside.curl("denied.test")).await;
    let data = server.folder.path().join("data");
    let audit = async |args: &[&str], place: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        let output = command.arg("audit").args(args).arg(place).output().await.unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.success(), text)
    };
    let shipped = async || {
        let (good, text) = audit(&["verify", "--json"], copies.path()).await;
        let copy: Value = serde_json::from_str(&text).unwrap_or_default();
        (good && copy["last_seq"].as_u64() >= Some(4)).then_some(copy)
    };
    let copy = wait_for("a copy", shipped).await;
    assert_eq!(copy["first_seq"], 1);
    assert!(server.terminate().await.success());
    let (good, text) = audit(&["verify"], &data.join("audit")).await;
    assert!(good && text.contains(": whole, records 1 to "), "{text}");
    assert!(text.contains("it ends where its anchor says"), "{text}");
    let (good, text) = audit(&["verify"], copies.path()).await;
    assert!(good, "everything was shipped at the end: {text}");
    let last = std::fs::read_dir(copies.path()).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    std::fs::write(&last, b"something else").unwrap();
    let (good, text) = audit(&["verify"], copies.path()).await;
    assert!(!good && text.contains("is not what was written"), "{text}");
    // The newest file is gone: what is left is whole in itself, and too short.
    std::fs::remove_file(data.join("audit/current.jsonl")).unwrap_or_default();
    let newest = std::fs::read_dir(data.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.to_string_lossy().contains("segment-")).max().unwrap();
    std::fs::remove_file(newest).unwrap();
    std::fs::write(data.join("audit/current.jsonl"), b"").unwrap();
    let (good, text) = audit(&["verify"], &data.join("audit")).await;
    assert!(
        !good && text.contains("the end of the audit log in ") && text.contains(" was written"),
        "{text}"
    );
    let (good, text) = audit(&["tail"], Path::new("/nowhere")).await;
    assert!(!good && text.contains("--data-dir"), "{text}");
}

/// `tail -f` shows what comes, for people and for machines.
#[tokio::test]
async fn the_log_is_followed_as_it_grows() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let outside = Outside::new().await;
    let (server, upstream) = start_with(&outside.config("", &outside.allow(&["allowed.test"]))).await;
    upstream.push(Answer::text("hi"));
    server.send(&server.session(json!({})).await, "hi").await.rest().await;
    let mut tail = Command::new(env!("CARGO_BIN_EXE_palisade"));
    tail.args(["audit", "tail", "-f", "--refused", "--tenant", "other"])
        .arg(server.folder.path().join("data/audit"));
    let mut tail = tail.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    bash_as_other(&server, &upstream, &outside.curl("denied.test")).await;
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("REFUSED  other/sess_") && line.contains("denied.test:"), "{line}");
    assert!(line.contains("403  not-allowed") && !line.contains("secret"), "{line}");
}

/// Without a configuration there is a proxy, too, and the planner behind it.
#[tokio::test]
async fn every_start_has_its_log() {
    let (server, upstream) = start().await;
    upstream.push(Answer::text("hi"));
    let id = server.session(json!({})).await;
    server.send(&id, "hi").await.rest().await;
    let all = log(&server);
    assert_eq!((all[0]["kind"].as_str(), all[0]["principal"].as_str()), (Some("open"), Some("router")));
}

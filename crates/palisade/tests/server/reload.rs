//! SIGHUP: what can be changed while the server runs comes into force as a whole, what needs a restart is named, and a file with a
//! mistake changes nothing.

use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

const OLD: &str = "pk_acme_old-0123456789abcdef";
const NEW: &str = "pk_acme_new-0123456789abcdef";
const SECOND: &str = "pk_second_0123456789abcdef";

/// Writes the file, sends SIGHUP, and waits for what the log says.
async fn reload(server: &Server, config: &str, said: &str) -> Value {
    let before = server.log().lines().count();
    std::fs::write(server.folder.path().join("palisade.toml"), config).unwrap();
    kill_process(server.pid().unwrap(), Signal::HUP).unwrap();
    wait_for(said, async || {
        let log = server.log();
        let line = log.lines().skip(before).find(|line| line.contains(said))?.to_owned();
        serde_json::from_str(&line).ok()
    })
    .await
}

async fn status(server: &Server, key: &str) -> u16 {
    let asked = server.anonymous(Method::GET, "/v1/models").bearer_auth(key);
    asked.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_reload_takes_what_it_can_and_names_the_rest() {
    let upstream = ScriptedUpstream::start().await.unwrap();
    let keys = tempfile::tempdir_in("/tmp").unwrap();
    let at = |name: &str| keys.path().join(name);
    let (acme, second, of_upstream) = (at("acme.key"), at("second.key"), at("upstream.key"));
    for (file, key) in [(&acme, OLD), (&second, SECOND), (&of_upstream, "sk-old")] {
        std::fs::write(file, key).unwrap();
        std::os::unix::fs::chown(file, Some(10001), None).ok();
    }
    std::os::unix::fs::chown(keys.path(), Some(10001), None).ok();
    let config = format!(
        "[[upstream]]\nname = \"u\"\ndialect = \"openai-chat\"\nbase_url = \"{}\"\napi_key = \"file:{}\"\n[model.m]\nupstream = \"u\"\nupstream_model = \"x\"\n\
         [[tenant]]\nname = \"acme\"\ntokens = [{{ id = \"t\", key = \"file:{}\" }}]\nlimits = {{ turns_per_hour = 1 }}\n",
        upstream.base_url(),
        of_upstream.display(),
        acme.display()
    );
    let server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), &config).await;
    let whole = std::fs::read_to_string(server.folder.path().join("palisade.toml")).unwrap();
    let session = async |key: &str| {
        let made = server.anonymous(Method::POST, "/v1/sessions").bearer_auth(key).json(&json!({}));
        server.json(made).await["id"].as_str().unwrap().to_owned()
    };
    let send = async |key: &str, session: &str| {
        let path = format!("/v1/sessions/{session}/messages");
        let sent = server.anonymous(Method::POST, &path).bearer_auth(key).json(&json!({"message": "go"}));
        sent.send().await.unwrap()
    };
    upstream.respond_with(|_| Answer::text("ok"));
    let id = session(OLD).await;
    TurnStream::of(send(OLD, &id).await).await.rest().await;
    assert_eq!(send(OLD, &id).await.status(), 429);

    let key_shown =
        || upstream.requests().last().unwrap().headers["authorization"].to_str().unwrap().to_owned();
    assert_eq!(key_shown(), "Bearer sk-old");

    // Other keys in the same files, another limit, one more tenant, and two settings that need a restart.
    std::fs::write(&acme, NEW).unwrap();
    std::fs::write(&of_upstream, "sk-new").unwrap();
    let more = format!(
        "[[tenant]]\nname = \"second\"\ntokens = [{{ id = \"s\", key = \"file:{}\" }}]\n",
        second.display()
    );
    let changed = whole
        .replace("turns_per_hour = 1", "turns_per_hour = 9")
        .replace("[sandbox]\n", &format!("{more}[sandbox]\npids = 100\n"));
    let changed = format!("listen = \"127.0.0.1:1\"\n{changed}");
    let said = reload(&server, &changed, "NEED A RESTART").await;
    assert_eq!(said["settings"], "listen, sandbox.pids");
    let log = server.log();
    for name in [
        "tenant.acme.limits.turns_per_hour",
        "tenant.second",
        "tenant.acme.tokens.t (key)",
        "upstream.u (key)",
    ] {
        assert!(log.contains(name), "{name}: {log}");
    }
    assert!(![OLD, NEW, SECOND].iter().any(|key| log.contains(key)), "no key is in the log");
    assert_eq!(
        (status(&server, OLD).await, status(&server, NEW).await, status(&server, SECOND).await),
        (401, 200, 200)
    );
    TurnStream::of(send(NEW, &id).await).await.rest().await;
    assert_eq!(key_shown(), "Bearer sk-new");
    let others = session(SECOND).await;
    TurnStream::of(send(SECOND, &others).await).await.rest().await;

    // A mistake anywhere changes nothing.
    std::fs::write(&acme, OLD).unwrap();
    for wrong in
        [changed.replace("turns_per_hour = 9", "turns_per_hour = 0"), changed.replace("acme.key", "no.key")]
    {
        reload(&server, &wrong, "was not read again: the old one stays").await;
        assert_eq!((status(&server, OLD).await, status(&server, NEW).await), (401, 200));
    }
    // A tenant that is gone is nobody's any more; what waits for a restart is named again.
    let said = reload(&server, &changed.replace(&more, ""), "NEED A RESTART").await;
    assert_eq!(said["settings"], "listen, sandbox.pids");
    assert_eq!((status(&server, OLD).await, status(&server, SECOND).await), (200, 401));
}

//! Every endpoint in one table, asked without a key and with another tenant's; and the table compared with the
//! OpenAPI document, so that a new endpoint cannot be forgotten here.

use std::collections::BTreeSet;

use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use serde_json::json;

use crate::{start, start_with};

/// What somebody who may not see the thing gets.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stranger {
    /// Anybody may ask.
    Open,
    /// Any key will do; the answer shows the caller's own things only.
    Own,
    /// Somebody else's thing is not there.
    NotFound,
}

/// Method, path as in the document, and what a stranger with a key gets.
const ENDPOINTS: &[(&str, &str, Stranger)] = &[
    ("GET", "/health", Stranger::Open),
    ("GET", "/ready", Stranger::Open),
    ("GET", "/metrics", Stranger::Own),
    ("POST", "/v1/sessions", Stranger::Own),
    ("GET", "/v1/sessions", Stranger::Own),
    ("DELETE", "/v1/sessions", Stranger::Own),
    ("GET", "/v1/models", Stranger::Own),
    ("GET", "/v1/usage", Stranger::Own),
    ("GET", "/v1/vault", Stranger::Own),
    ("PUT", "/v1/vault/{name}", Stranger::Own),
    ("DELETE", "/v1/vault/{name}", Stranger::NotFound),
    ("GET", "/v1/sessions/{id}", Stranger::NotFound),
    ("DELETE", "/v1/sessions/{id}", Stranger::NotFound),
    ("POST", "/v1/sessions/{id}/messages", Stranger::NotFound),
    ("GET", "/v1/sessions/{id}/messages", Stranger::NotFound),
    ("GET", "/v1/sessions/{id}/responses/{rid}/events", Stranger::NotFound),
    ("POST", "/v1/sessions/{id}/responses/{rid}/cancel", Stranger::NotFound),
    ("POST", "/v1/sessions/{id}/tool_results", Stranger::NotFound),
    ("GET", "/v1/sessions/{id}/files", Stranger::NotFound),
    ("GET", "/v1/sessions/{id}/files/{path}", Stranger::NotFound),
    ("PUT", "/v1/sessions/{id}/files/{path}", Stranger::NotFound),
    ("DELETE", "/v1/sessions/{id}/files/{path}", Stranger::NotFound),
];

/// In the contract and not here yet: closed to whoever has no key, and honest to whoever has.
const PLANNED: &[(&str, &str)] = &[
    ("GET", "/v1/skills"),
    ("POST", "/v1/skills/tables"),
    ("DELETE", "/v1/skills/tables"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/resp_0/events"),
    ("POST", "/v1/responses/resp_0/cancel"),
];

#[tokio::test]
async fn no_endpoint_answers_a_stranger() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    server.json(server.request(Method::PUT, &format!("/v1/sessions/{id}/files/a.txt")).body("mine")).await;
    let credential =
        json!({"value": "v", "allowed_hosts": ["api.example.com"], "injection": {"type": "bearer"}});
    server.json(server.request(Method::PUT, "/v1/vault/github").json(&credential)).await;
    upstream.push(Answer::text("hi"));
    let mut stream = server.send(&id, "hello").await;
    let turn = stream.turn.clone();
    stream.rest().await;
    let of = |path: &str| {
        path.replace("{id}", &id)
            .replace("{rid}", &turn)
            .replace("{path}", "a.txt")
            .replace("{name}", "github")
    };
    let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap();
    for (name, path, stranger) in ENDPOINTS {
        let body = json!({"message": "let me in", "call_id": "call_x", "output": "mine"});
        let nobody = server.anonymous(method(name), &of(path)).json(&body).send().await.unwrap();
        let expected = if *stranger == Stranger::Open { 200 } else { 401 };
        assert_eq!(nobody.status(), expected, "{name} {path} without a key");
        let bad = server
            .anonymous(method(name), &of(path))
            .bearer_auth("pk_acme_wrong-wrong-wrong-wrong")
            .json(&body);
        assert_eq!(bad.send().await.unwrap().status(), expected, "{name} {path} with a wrong key");
        let other = server.as_other(method(name), &of(path)).json(&body).send().await.unwrap();
        match stranger {
            Stranger::Open | Stranger::Own => {
                assert!(
                    other.status().is_success() || other.status() == 400,
                    "{name} {path}: {}",
                    other.status()
                );
                let text = other.text().await.unwrap();
                assert!(!text.contains(&id), "{name} {path} shows another tenant's session: {text}");
            }
            Stranger::NotFound => assert_eq!(other.status(), 404, "{name} {path} as another tenant"),
        }
    }
    for (name, path) in PLANNED {
        let path = of(path);
        assert_eq!(server.refused(server.anonymous(method(name), &path)).await.0, 401, "{name} {path}");
        assert_eq!(server.refused(server.request(method(name), &path)).await.0, 501, "{name} {path}");
    }
    assert_eq!(
        server.get(&format!("/v1/sessions/{id}/files")).await[0]["name"],
        ".memory",
        "nothing was changed"
    );
    assert_eq!(server.get("/v1/sessions").await.as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/vault").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_table_and_the_document_name_the_same_endpoints() {
    let (server, _upstream) = start().await;
    let document: serde_json::Value = server.json(server.anonymous(Method::GET, "/openapi.json")).await;
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let table: BTreeSet<(String, String)> =
        ENDPOINTS.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, table);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let page = server.anonymous(Method::GET, "/docs").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("/openapi.json"));
}

#[tokio::test]
async fn what_is_not_there_says_so_in_the_contracts_shape() {
    let (server, _upstream) = start().await;
    assert_eq!(
        server.refused(server.request(Method::GET, "/v1/nothing")).await,
        (404, "endpoint.not_found".into())
    );
    assert_eq!(
        server.refused(server.request(Method::PATCH, "/v1/sessions")).await,
        (405, "endpoint.method_not_allowed".into())
    );
    assert_eq!(server.refused(server.anonymous(Method::GET, "/v1/nothing")).await.0, 401);
}

/// An operator collects metrics at an address of its own without a key, and nothing else is there.
#[tokio::test]
async fn metrics_need_no_key_at_their_own_address() {
    let (server, _upstream) = start_with("[metrics]\nlisten = \"localhost:0\"\n").await;
    let line = wait_for("the metrics' address", async || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("metrics are answered without a key"))?.to_owned();
        serde_json::from_str::<serde_json::Value>(&line).ok()
    })
    .await;
    let at = format!("http://{}", line["address"].as_str().unwrap());
    let text = reqwest::get(format!("{at}/metrics")).await.unwrap().text().await.unwrap();
    assert!(
        text.contains("palisade_turns_running 0") && text.contains("palisade_log_lines_lost_total 0"),
        "{text}"
    );
    for (path, status) in [("/health", 200), ("/v1/models", 404), ("/ready", 404)] {
        assert_eq!(reqwest::get(format!("{at}{path}")).await.unwrap().status(), status, "{path}");
    }
    assert_eq!(server.refused(server.anonymous(Method::GET, "/metrics")).await.0, 401);
}

/// A model whose upstream is away is not ready; one that has another upstream is, and says which one is away.
#[tokio::test]
async fn readiness_looks_at_the_upstreams() {
    let there = ScriptedUpstream::start().await.unwrap();
    let config = |order: &str| {
        format!(
            "[[upstream]]\nname = \"gone\"\ndialect = \"openai-chat\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
             [[upstream]]\nname = \"there\"\ndialect = \"openai-chat\"\nbase_url = \"{}\"\n\
             [model.m]\nupstream = {order}\nupstream_model = \"x\"\n\
             [[tenant]]\nname = \"acme\"\ntokens = [{{ id = \"t\", key = \"env:ACME_KEY\" }}]\n",
            there.base_url()
        )
    };
    let ready = async |order: &str| {
        let server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), &config(order)).await;
        let answer = server.request(Method::GET, "/ready").send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<serde_json::Value>().await.unwrap()["parts"]["models"].clone())
    };
    let (status, models) = ready("[\"gone\"]").await;
    assert_eq!((status, &models["ok"]), (503, &json!(false)));
    assert!(
        models["problem"].as_str().unwrap().contains("no upstream of model \"m\" can be reached (gone)"),
        "{models}"
    );
    let (status, models) = ready("[\"gone\", \"there\"]").await;
    assert_eq!((status, &models["ok"]), (200, &json!(true)));
    assert!(models["problem"].as_str().unwrap().ends_with("gone"), "{models}");
    assert!(there.requests().is_empty(), "a look is a connection and no request");
}

#[tokio::test]
async fn health_readiness_metrics_and_request_ids() {
    let (server, _upstream) = start().await;
    server.session(json!({})).await;
    let ready: serde_json::Value = server.get("/ready").await;
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["parts"]["sandbox"]["ok"], true);
    let bare: serde_json::Value = server.json(server.anonymous(Method::GET, "/ready")).await;
    assert_eq!(bare, json!({"status": "ready"}), "detail needs a key");
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "palisade_http_requests_total{method=\"POST\",route=\"/v1/sessions\",status=\"201\"} 1",
        "palisade_turns_running 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let given =
        server.anonymous(Method::GET, "/health").header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(given.headers()["x-request-id"], "mine-1");
    let made = server
        .anonymous(Method::GET, "/health")
        .header("x-request-id", "no good\u{e9}")
        .send()
        .await
        .unwrap();
    assert!(made.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    let logged = server.log().lines().any(|line| {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        line["span"]["request_id"] == "mine-1" && line["status"] == 200
    });
    assert!(logged, "a line of the log carries the request's id");
}

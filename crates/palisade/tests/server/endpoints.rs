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
        let body = match path.rsplit('/').next() {
            Some("messages") => json!({"message": "let me in"}),
            Some("tool_results") => json!({"call_id": "call_x", "output": "mine"}),
            _ => json!({}),
        };
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
    for (name, path, _) in ENDPOINTS.iter().filter(|(name, ..)| *name == "GET") {
        let get = server.request(method(name), &of(path)).send().await.unwrap();
        let head = server.request(Method::HEAD, &of(path)).send().await.unwrap();
        let shown =
            |answer: &reqwest::Response| (answer.status(), answer.headers().get("content-type").cloned());
        assert_eq!(shown(&head), shown(&get), "HEAD {path}");
        assert_eq!(head.bytes().await.unwrap().len(), 0, "HEAD {path}");
    }
    for (name, path) in PLANNED {
        let path = of(path);
        assert_eq!(server.refused(server.anonymous(method(name), &path)).await.0, 401, "{name} {path}");
        assert_eq!(server.refused(server.request(method(name), &path)).await.0, 501, "{name} {path}");
    }
    assert_eq!(
        server.get(&format!("/v1/sessions/{id}/files")).await[0]["name"],
        ".agents",
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

const PAGE: &str = "https://app.example.com";

fn preflight(server: &palisade_testkit::Server, origin: &str, path: &str) -> reqwest::RequestBuilder {
    let request = server.anonymous(Method::OPTIONS, path).header("Origin", origin);
    request
        .header("Access-Control-Request-Method", "PUT")
        .header("Access-Control-Request-Headers", "authorization,if-match")
}

#[tokio::test]
async fn no_web_page_of_another_origin_is_answered_unless_it_is_named() {
    let (server, _upstream) = start().await;
    assert_eq!(
        server.refused(preflight(&server, PAGE, "/v1/sessions")).await,
        (401, "cors.not_allowed".to_owned())
    );
    let plain = server.request(Method::GET, "/v1/sessions").header("Origin", PAGE).send().await.unwrap();
    assert!(plain.status() == 200 && plain.headers().get("access-control-allow-origin").is_none());

    let (server, _upstream) =
        start_with(&format!("[cors]\norigins = [\"{PAGE}\", \"http://localhost:5173\"]\n")).await;
    let allowed = |answer: &reqwest::Response| {
        answer.headers().get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    for (origin, expected) in [
        (PAGE, Some(PAGE.to_owned())),
        ("http://localhost:5173", Some("http://localhost:5173".to_owned())),
        ("https://evil.example.com", None),
        ("https://app.example.com.evil.example", None),
        ("null", None),
    ] {
        let answer = preflight(&server, origin, "/v1/sessions/x/files/y").send().await.unwrap();
        assert_eq!(allowed(&answer), expected, "{origin}");
        assert!(answer.headers().get("access-control-allow-credentials").is_none(), "{origin}");
        let listed =
            server.request(Method::GET, "/v1/sessions").header("Origin", origin).send().await.unwrap();
        assert_eq!((listed.status().as_u16(), allowed(&listed)), (200, expected), "{origin}");
    }
    let asked = preflight(&server, PAGE, "/v1/sessions/x/files/y").send().await.unwrap();
    let named = asked.headers()["access-control-allow-headers"].to_str().unwrap().to_owned();
    for header in ["authorization", "if-match", "idempotency-key", "last-event-id", "range"] {
        assert!(named.contains(header), "{header}: {named}");
    }
    let refused = server.anonymous(Method::GET, "/v1/sessions").header("Origin", PAGE).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), allowed(&refused)),
        (401, Some(PAGE.to_owned())),
        "an error is readable, too"
    );
    let exposed = refused.headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
    for header in ["etag", "link", "content-range", "retry-after", "x-response-id"] {
        assert!(exposed.contains(header), "{header}: {exposed}");
    }
    let nobody = server.anonymous(Method::OPTIONS, "/v1/sessions").send().await.unwrap();
    assert!(allowed(&nobody).is_none());
}

/// What a client generator and a careful reader need of the document.
#[tokio::test]
async fn the_document_has_bounds_and_describes_every_answer() {
    let (server, _upstream) = start().await;
    let document = server.json(server.anonymous(Method::GET, "/openapi.json")).await;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert_ne!(answer["description"].as_str().unwrap_or(""), "", "{method} {path} {status}");
            }
        }
    }
    assert_eq!(document["paths"]["/health"]["get"]["security"], json!([{}]), "it needs no key");
    let file = &document["paths"]["/v1/sessions/{id}/files/{path}"];
    for (method, statuses) in [("get", ["304", "412", "413", "416"]), ("put", ["412", "413", "415", "507"])] {
        for status in statuses {
            assert!(file[method]["responses"][status].is_object(), "{method} {status}");
        }
    }
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["MessageBody"]["properties"]["message"]["maxLength"], 1024 * 1024);
    assert_eq!(schemas["SessionDraft"]["properties"]["ttl"]["maximum"], 30 * 86_400);
    assert_eq!(schemas["SessionDraft"]["properties"]["tools"]["maxItems"], 128);
    assert_eq!(schemas["FileAccess"]["properties"]["read"]["maxItems"], 64);
    for closed in ["SessionDraft", "MessageBody", "ToolResults", "CredentialBody", "FileAccess"] {
        assert_eq!(schemas[closed]["additionalProperties"], false, "{closed}");
    }
}

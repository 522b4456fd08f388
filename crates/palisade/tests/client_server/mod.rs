//! A server of the contract with one session and one scripted turn. It cuts, refuses and waits as planned, and
//! remembers every request.

use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub(crate) const SESSION: &str = "sess_a86118c06688";
pub(crate) const TURN: &str = "msg_0123456789abcdef01234567";

/// How the server behaves.
pub(crate) struct Plan {
    /// After how many bytes the first, second, … stream is cut.
    pub(crate) cuts_bytes: Vec<usize>,
    /// How many reconnects are answered with 503.
    pub(crate) reconnects_refused: usize,
    /// The status of a resume, when it is not to work.
    pub(crate) resume_status: u16,
    /// The last event.
    pub(crate) last: (&'static str, Value),
    /// The turn stops before its result until it is cancelled.
    pub(crate) waits_for_cancel: bool,
    pub(crate) ignores_cancel: bool,
    /// Downloads break off in the middle.
    pub(crate) broken_downloads: bool,
    /// The turn's files are there from the start.
    pub(crate) after_turn: bool,
    /// The turn also makes files whose names an attacker would choose.
    pub(crate) hostile_names: bool,
    /// The session has no turn.
    pub(crate) nothing_ran: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let usage = json!({"input_tokens": 12, "output_tokens": 5, "total_tokens": 17});
        Self {
            cuts_bytes: Vec::new(),
            reconnects_refused: 0,
            resume_status: 200,
            last: ("message.completed", json!({"id": TURN, "status": "completed", "usage": usage})),
            waits_for_cancel: false,
            ignores_cancel: false,
            broken_downloads: false,
            after_turn: false,
            hostile_names: false,
            nothing_ran: false,
        }
    }
}

/// A running server; it ends with the test's process.
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<Shared>,
}

struct Shared {
    plan: Plan,
    seen: Mutex<Vec<String>>,
    keys: Mutex<Vec<String>>,
    streams: Mutex<usize>,
    refused: Mutex<usize>,
    cancelled: Notify,
}

impl Server {
    pub(crate) fn start(plan: Plan) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Shared {
            plan,
            seen: Mutex::default(),
            keys: Mutex::default(),
            streams: Mutex::default(),
            refused: Mutex::default(),
            cancelled: Notify::new(),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { url, state }
    }

    /// Every request so far: method, path and query, and the body if there was one.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The idempotency keys of messages so far.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state.keys.lock().unwrap().clone()
    }
}

/// The events of the turn, less the last one's number.
pub(crate) fn turn_frames() -> Vec<(&'static str, Value)> {
    frames_of(&Plan::default())
}

fn frames_of(plan: &Plan) -> Vec<(&'static str, Value)> {
    let mut events = vec![
        ("message.created", json!({"id": TURN, "session_id": SESSION, "status": "in_progress"})),
        ("text.start", json!({})),
        ("text.delta", json!({"content": "I build it.\n"})),
        ("text.stop", json!({})),
        ("tool_use.start", json!({"id": "call_1", "name": "Bash"})),
        (
            "tool_use.executing",
            json!({"id": "call_1", "name": "Bash", "input": {"command": "python3 build.py"}}),
        ),
        ("tool_use.output_delta", json!({"id": "call_1", "content": "slide 1\n"})),
        ("tool_use.stop", json!({})),
        ("tool_result", json!({"id": "call_1", "content": "slide 1\n", "is_error": false})),
        plan.last.clone(),
    ];
    for (seq, (_, data)) in events.iter_mut().enumerate() {
        data["sequence_number"] = json!(seq);
    }
    events
}

pub(crate) fn frame(seq: usize, (event, data): &(&str, Value)) -> String {
    format!("id: {seq}\nevent: {event}\ndata: {data}\n\n")
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1024 * 1024).await.unwrap();
    let (method, target) = (head.method.as_str().to_owned(), head.uri.to_string());
    let with_body = if matches!(method.as_str(), "POST" | "PUT") {
        format!("{method} {target} {}", String::from_utf8_lossy(&body))
    } else {
        format!("{method} {target}")
    };
    shared.seen.lock().unwrap().push(with_body);
    if let Some(key) = head.headers.get("idempotency-key") {
        shared.keys.lock().unwrap().push(key.to_str().unwrap().to_owned());
    }
    if head.headers.get("authorization").is_none_or(|key| key != "Bearer pk_test_key") {
        return refused(401, "Unauthorized", "a valid key is needed", "auth.invalid");
    }
    let session = format!("/v1/sessions/{SESSION}");
    let Some(inner) = target.strip_prefix(&session) else {
        return outside_a_session(&shared, &method, &target);
    };
    let (path, query) = inner.split_once('?').unwrap_or((inner, ""));
    match (method.as_str(), path) {
        ("GET", "") => json_answer(200, &record(&shared.plan)),
        ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
        ("POST", "/messages") => {
            let mut response = stream_from(&shared, 0);
            response.headers_mut().insert("x-response-id", TURN.parse().unwrap());
            response
        }
        ("POST", _) if path.ends_with("/cancel") => {
            if !shared.plan.ignores_cancel {
                shared.cancelled.notify_one();
            }
            json_answer(202, &json!({"response_id": TURN, "status": "cancelling"}))
        }
        ("GET", _) if path == format!("/responses/{TURN}/events") => {
            let last =
                head.headers.get("last-event-id").map(|id| id.to_str().unwrap().parse::<usize>().unwrap());
            resume(&shared, last.map_or(0, |last| last + 1))
        }
        ("GET", "/files") => json_answer(200, &listing(&shared, query)),
        ("GET", "/files/output") => json_answer(200, &listing(&shared, "path=output")),
        ("GET", "/files/output/deck.pptx") => file(&shared, "deck"),
        ("GET", "/files/output/charts/a%20b.csv") => file(&shared, "a,b"),
        ("GET", path) if shared.plan.hostile_names && path.starts_with("/files/output/charts/") => {
            file(&shared, "x")
        }
        ("PUT", _) => {
            let path = percent_encoding::percent_decode_str(path.strip_prefix("/files/").unwrap())
                .decode_utf8_lossy();
            json_answer(201, &json!({"path": path, "size": body.len(), "modified": 1.5}))
        }
        _ => refused(404, "Not Found", "no such thing", "not_found"),
    }
}

fn outside_a_session(shared: &Shared, method: &str, target: &str) -> Response {
    match (method, target) {
        ("POST", "/v1/sessions") => json_answer(201, &record(&shared.plan)),
        ("GET", "/v1/sessions") => json_answer(200, &json!([record(&shared.plan)])),
        ("DELETE", _) if target.starts_with("/v1/sessions?status=idle") => {
            json_answer(200, &json!({"deleted": 3}))
        }
        _ => refused(404, "Not Found", "no such session", "session.not_found"),
    }
}

fn record(plan: &Plan) -> Value {
    json!({
        "id": SESSION, "created_at": 1777222996.07, "last_activity": 1777222996.07, "busy": true,
        "persistent": false, "ttl": 14400, "status": "ready", "metadata": {"deck_status": "drawing"},
        "file_access": {"read": [""], "write": [""]}, "model": "pokee-isaac", "expires_at": 1777237396.07,
        "last_response_id": if plan.nothing_ran { Value::Null } else { json!(TURN) },
    })
}

fn resume(shared: &Arc<Shared>, from: usize) -> Response {
    let mut refusals = shared.refused.lock().unwrap();
    if *refusals < shared.plan.reconnects_refused {
        *refusals += 1;
        return refused(503, "Service Unavailable", "restarting", "unavailable");
    }
    if shared.plan.resume_status != 200 {
        return refused(shared.plan.resume_status, "Not Found", "no such turn", "turn.not_found");
    }
    stream_from(shared, from)
}

/// The turn from an event on: whole, cut after some bytes, or waiting before its tool's result.
fn stream_from(shared: &Arc<Shared>, from: usize) -> Response {
    let number = {
        let mut streams = shared.streams.lock().unwrap();
        *streams += 1;
        *streams - 1
    };
    let frames = frames_of(&shared.plan);
    let until = if shared.plan.waits_for_cancel { 7 } else { frames.len() };
    let bytes: String = (from..until).map(|seq| frame(seq, &frames[seq])).collect();
    let mut bytes = Bytes::from(format!(": keep-alive\n\n{bytes}"));
    let mut pieces: Vec<io::Result<Bytes>> = Vec::new();
    let cut = shared.plan.cuts_bytes.get(number).map(|cut| (*cut).min(bytes.len()));
    if let Some(cut) = cut {
        bytes.truncate(cut);
    }
    // Small pieces, so that frames are cut by the transport, too.
    pieces.extend(bytes.chunks(13).map(|piece| Ok(Bytes::copy_from_slice(piece))));
    if cut.is_some() {
        pieces.push(Err(io::Error::other("cut")));
    }
    let now = stream::iter(pieces);
    let body = if shared.plan.waits_for_cancel {
        let shared = Arc::clone(shared);
        let cancelled = async move {
            shared.cancelled.notified().await;
            let data = json!({"id": TURN, "status": "cancelled", "sequence_number": until});
            Ok(Bytes::from(frame(until, &("message.cancelled", data))))
        };
        Body::from_stream(now.chain(stream::once(cancelled)))
    } else {
        Body::from_stream(now)
    };
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
}

/// `output` before the turn has one old file; after it, that and what was made.
fn listing(shared: &Shared, query: &str) -> Value {
    let made = shared.plan.after_turn || *shared.streams.lock().unwrap() > 0;
    let file =
        |name: &str, size: u64| json!({"name": name, "type": "file", "size": size, "modified": 1777222996.5});
    let folder = |name: &str| json!({"name": name, "type": "directory", "size": 0, "modified": 1777222996.5});
    match (query, made) {
        ("path=output", false) => json!([file("old.pdf", 9)]),
        ("path=output", true) => json!([
            file(".bashrc", 5),
            folder("charts"),
            file("deck.pptx", 4),
            file("old.pdf", 9),
            file("../escape", 1),
        ]),
        ("path=output/charts", true) if shared.plan.hostile_names => json!([
            file("-rf", 1),
            file("--checkpoint-action=exec=sh", 1),
            file("~root", 1),
            file("invoice\u{202e}fdp.exe", 1),
            file("a\u{9b}2J\u{2028}", 1),
        ]),
        ("path=output/charts", true) => json!([file("a b.csv", 3)]),
        _ => json!([]),
    }
}

fn file(shared: &Shared, content: &'static str) -> Response {
    let pieces = if shared.plan.broken_downloads {
        vec![Ok(Bytes::from(&content.as_bytes()[..1])), Err(io::Error::other("cut"))]
    } else {
        vec![Ok(Bytes::from(content))]
    };
    Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .body(Body::from_stream(stream::iter(pieces)))
        .unwrap()
}

fn json_answer(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    response.body(Body::from(body.to_string())).unwrap()
}

fn refused(status: u16, error: &str, message: &str, code: &str) -> Response {
    json_answer(status, &json!({"error": error, "message": message, "code": code}))
}

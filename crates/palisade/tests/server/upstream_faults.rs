//! Whatever an upstream does: the turn ends with one clear error, what was streamed stays, the session is usable.

use palisade_testkit::Server;
use palisade_testkit::origin::{Manner, Origin};
use palisade_testkit::stream::{TurnEvent, joined, kinds};
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{start, start_with};

async fn fails(server: &Server, session: &str, code: &str) -> Vec<TurnEvent> {
    let events = server.send(session, "go").await.rest().await;
    let ends =
        kinds(&events).into_iter().filter(|kind| kind.starts_with("message.") && *kind != "message.created");
    assert_eq!(ends.collect::<Vec<_>>(), ["message.error"]);
    let end = &events.last().unwrap().data;
    assert_eq!(end["code"], code, "{end}");
    assert!(end["error"].as_str().is_some_and(|text| !text.is_empty() && !text.contains("pk_")), "{end}");
    assert_eq!(server.get(&format!("/v1/sessions/{session}")).await["busy"], false);
    events
}

async fn is_usable(server: &Server, upstream: &ScriptedUpstream, session: &str) {
    upstream.push(Answer::text("recovered"));
    let events = server.send(session, "again").await.rest().await;
    assert_eq!(joined(&events, "text.delta"), "recovered");
}

#[tokio::test]
async fn html_refusals_and_errors() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    for (answers, code) in [
        (vec![Answer::html()], "upstream.bad_answer"),
        (vec![Answer::http_error(StatusCode::UNAUTHORIZED, "bad key")], "upstream.refused"),
        (vec![Answer::http_error(StatusCode::BAD_REQUEST, "no such parameter")], "upstream.error"),
        (vec![Answer::raw(StatusCode::OK, "application/json", "{}")], "upstream.bad_answer"),
    ] {
        upstream.push_all(answers);
        fails(&server, &id, code).await;
        is_usable(&server, &upstream, &id).await;
    }
}

#[tokio::test]
async fn a_reset_in_mid_stream_keeps_what_came_and_is_not_repeated() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::stream().say("half an ans").reset());
    let events = fails(&server, &id, "upstream.truncated").await;
    assert_eq!(joined(&events, "text.delta"), "half an ans");
    assert_eq!(kinds(&events)[kinds(&events).len() - 2], "text.stop", "the open block is closed");
    assert_eq!(upstream.requests().len(), 1, "no retry after an event was handed out");
    is_usable(&server, &upstream, &id).await;
}

#[tokio::test]
async fn an_upstream_that_stalls_or_never_ends_is_given_up() {
    let (server, upstream) =
        start_with("[inference]\nhead_timeout_s = 1\nidle_timeout_s = 1\ncall_timeout_s = 3").await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::stream().say("and then").stall());
    fails(&server, &id, "upstream.timeout").await;
    upstream.push(Answer::never());
    fails(&server, &id, "upstream.timeout").await;
    is_usable(&server, &upstream, &id).await;
}

#[tokio::test]
async fn an_upstream_that_is_down_is_named() {
    let upstream = ScriptedUpstream::start().await.unwrap();
    let server = Server::start(env!("CARGO_BIN_EXE_palisade"), &upstream, "").await;
    let id = server.session(json!({})).await;
    drop(upstream);
    let events = fails(&server, &id, "upstream.unreachable").await;
    let said = events.last().unwrap().data["error"].as_str().unwrap().to_owned();
    assert!(said.contains("\"scripted\" cannot be reached: nobody answers there"), "{said}");
    assert_eq!(server.request(Method::GET, "/health").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn passing_faults_are_retried_in_silence() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::http_error(StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    upstream.push(Answer::reset_at_once());
    upstream.push(Answer::text("third time lucky"));
    let events = server.send(&id, "go").await.rest().await;
    assert_eq!(joined(&events, "text.delta"), "third time lucky");
}

/// It was reached, and whoever mends it needs to know what it said.
#[tokio::test]
async fn what_is_no_answer_of_http_is_told_as_that() {
    let not_http = "sent an answer that cannot be read: the answer of the host is not HTTP";
    let too_large =
        "sent an answer that cannot be read: the head of the answer has more than 16 KiB or 100 fields";
    let (long, many) = (format!("X-Long: {}\r\n", "x".repeat(17 * 1024)), "X-Many: x\r\n".repeat(101));
    let answers: [(&[u8], &str); 9] = [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", not_http),
        (b"ERROR\r\nERROR\r\n", not_http),
        (b"\x15\x03\x01\x00\x02\x02\x46", not_http),
        (b"HTTP/1.1 abc\r\n\r\n", not_http),
        (b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n", not_http),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "leaves open where it ends",
        ),
        (&[b"HTTP/1.1 200 OK\r\n", long.as_bytes(), b"\r\n"].concat(), too_large),
        (&[b"HTTP/1.1 200 OK\r\n", many.as_bytes(), b"\r\n"].concat(), too_large),
        (b"", "gave no answer: the host broke the connection off"),
    ];
    let mut config = String::new();
    let mut origins = Vec::new();
    for (number, (answer, _)) in answers.iter().enumerate() {
        let close = number == 0 || answer.is_empty();
        let manner = if close { Manner::AnswerAndClose } else { Manner::Answer };
        let origin = Origin::start(manner(answer.to_vec())).await.unwrap();
        config += &format!(
            "[[upstream]]\nname = \"wrong-{number}\"\ndialect = \"openai-chat\"\nbase_url = \"http://{}\"\n\
             [model.\"m-{number}\"]\nupstream = \"wrong-{number}\"\nupstream_model = \"m\"\n\
             price = {{ input = 1.0, output = 1.0 }}\n",
            origin.address()
        );
        origins.push(origin);
    }
    let (server, upstream) = start_with(&config).await;
    for (number, (answer, told)) in answers.iter().enumerate() {
        let id = server.session(json!({"model": format!("m-{number}")})).await;
        let code = if answer.is_empty() { "upstream.unreachable" } else { "upstream.bad_answer" };
        let events = fails(&server, &id, code).await;
        let said = events.last().unwrap().data["error"].as_str().unwrap();
        assert!(said.contains(&format!("the upstream \"wrong-{number}\" ")) && said.contains(told), "{said}");
    }
    let id = server.session(json!({"model": "pokee-isaac"})).await;
    is_usable(&server, &upstream, &id).await;
}

//! The conversation as items, paged.

use palisade_testkit::upstream::{Answer, Call, Gate};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use palisade_testkit::Server;

use crate::start;

/// Every page of a conversation, one after the other.
async fn pages(server: &Server, id: &str, limit: usize) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = server.get(&format!("/v1/sessions/{id}/messages?limit={limit}{after}")).await;
        pages.push(page["data"].as_array().unwrap().clone());
        assert_eq!(page["has_more"].as_bool().unwrap(), page["next_after"].is_u64(), "{page}");
        match page["next_after"].as_u64() {
            Some(next) => after = format!("&after={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn what_was_said_and_done_is_read_page_by_page() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let path = format!("/v1/sessions/{id}/messages");
    let empty = json!({"data": [], "has_more": false, "next_after": null});
    assert_eq!(server.get(&path).await, empty);
    upstream.push(Answer::calls([
        Call::new("Bash", json!({"command": "echo fine"})),
        Call::new("Bash", json!({"command": "exit 3"})),
    ]));
    upstream.push(Answer::text("looked"));
    let mut stream = server.send(&id, "look").await;
    let first = stream.turn.clone();
    stream.until("message.completed").await;
    upstream.push(Answer::http_error(StatusCode::BAD_REQUEST, "no"));
    let mut stream = server.send(&id, "again").await;
    let second = stream.turn.clone();
    stream.until("message.error").await;

    let whole = server.get(&path).await;
    let items = whole["data"].as_array().unwrap();
    let types: Vec<&str> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
    let (one, two) = types.split_at(8);
    assert_eq!(
        one,
        [
            "user_message",
            "assistant_message",
            "tool_started",
            "tool_finished",
            "tool_started",
            "tool_finished",
            "assistant_message",
            "turn_ended"
        ]
    );
    assert_eq!(two, ["user_message", "turn_ended"]);
    for (at, item) in items.iter().enumerate() {
        assert_eq!(item["index"], at, "{item}");
        assert_eq!(item["response_id"], if at < 8 { first.as_str() } else { second.as_str() });
    }
    assert_eq!(items[0]["text"], "look");
    assert_eq!(items[1]["calls"][1]["name"], "Bash");
    assert_eq!(items[3]["call_id"], items[1]["calls"][0]["id"]);
    assert_eq!(items[3]["output"], json!({"content": "fine\n", "is_error": false}));
    assert_eq!(items[5]["output"]["is_error"], true);
    assert_eq!((&items[6]["text"], &items[7]["outcome"]), (&json!("looked"), &json!("completed")));
    assert_eq!(items[9]["outcome"], "failed");

    for limit in [1, 3, 9, 10, 200] {
        let pages = pages(&server, &id, limit).await;
        assert_eq!(pages.len(), items.len().div_ceil(limit), "limit {limit}");
        assert!(pages.iter().all(|page| page.len() <= limit));
        assert_eq!(&pages.concat(), items, "limit {limit}: no gap, no duplicate");
    }
    assert_eq!(server.get(&format!("{path}?after=9")).await, empty);
    assert_eq!(server.get(&format!("{path}?after=18446744073709551615")).await, empty);
    for wrong in ["limit=0", "limit=201", "limit=x", "limit=-1", "after=-1", "after=x", "after=1.5"] {
        let request = server.request(Method::GET, &format!("{path}?{wrong}"));
        assert_eq!(server.refused(request).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_message_is_in_the_conversation_while_it_is_answered() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("hm").wait(&gate).done());
    let mut stream = server.send(&id, "think").await;
    stream.until("text.delta").await;
    let page = server.get(&format!("/v1/sessions/{id}/messages")).await;
    let expected = json!([{"index": 0, "response_id": stream.turn, "type": "user_message", "text": "think"}]);
    assert_eq!(page["data"], expected, "what is being streamed is not said yet");
    gate.open();
    stream.until("message.completed").await;
}

#[tokio::test]
async fn a_page_of_long_items_is_cut_short_and_says_so() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::text("ok"));
    let long = "x".repeat(1024 * 1024 - 1);
    for _ in 0..6 {
        server.send(&id, &long).await.until("message.completed").await;
    }
    let pages = pages(&server, &id, 200).await;
    // Three items a turn, a megabyte in each first one; the fourth of those is the last that fits.
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 8]);
}

//! Tools that the client runs: requested on the stream, answered by another request (contract §4).

use palisade_testkit::stream::{TurnStream, joined, kinds};
use palisade_testkit::upstream::{Answer, Call};
use palisade_testkit::{Server, wait_for};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{start, start_with};

fn tools() -> Value {
    json!({"tools": [{"type": "function", "function": {"name": "lookup", "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}}]})
}

fn results(server: &Server, session: &str, body: &Value) -> RequestBuilder {
    server.request(Method::POST, &format!("/v1/sessions/{session}/tool_results")).json(body)
}

fn lookup(id: &str, word: &str) -> Call {
    Call::new("lookup", json!({"word": word})).with_id(id)
}

#[tokio::test]
async fn the_turn_waits_for_the_client_and_goes_on() {
    let (server, upstream) = start().await;
    let id = server.session(tools()).await;
    upstream.push(Answer::calls([lookup("call_a", "tea")]));
    upstream.push(Answer::text("It is a leaf."));
    let mut stream = server.send(&id, "What is tea?").await;
    let asked = stream.until("tool_call.requested").await;
    let mut blocks = kinds(&asked);
    blocks.dedup();
    assert_eq!(
        blocks,
        ["message.created", "tool_use.start", "tool_use.input_delta", "tool_use.stop", "tool_call.requested"]
    );
    let call = &asked.last().unwrap().data;
    assert_eq!((&call["call_id"], &call["name"]), (&json!("call_a"), &json!("lookup")));
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"word": "tea"}), "a JSON string, as OpenAI has it");
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await["busy"], true);

    let unknown = results(&server, &id, &json!({"call_id": "call_x", "output": "?"}));
    assert_eq!(server.refused(unknown).await, (404, "tool.unknown_call".into()));
    for wrong in [
        json!({}),
        json!({"call_id": "call_a"}),
        json!({"call_id": "call_a", "output": 5}),
        json!({"results": []}),
    ] {
        assert_eq!(server.refused(results(&server, &id, &wrong)).await.0, 400, "{wrong}");
    }
    let answered =
        server.json(results(&server, &id, &json!({"call_id": "call_a", "output": "a leaf"}))).await;
    assert_eq!(answered, json!({"status": "accepted"}));
    let rest = stream.rest().await;
    assert_eq!(rest[0].kind, "tool_result");
    assert_eq!((&rest[0].data["id"], &rest[0].data["content"]), (&json!("call_a"), &json!("a leaf")));
    assert_eq!(joined(&rest, "text.delta"), "It is a leaf.");
    let twice = results(&server, &id, &json!({"call_id": "call_a", "output": "again"}));
    assert_eq!(server.refused(twice).await.0, 409);

    let offered = upstream.requests()[0].json["tools"].to_string();
    assert!(offered.contains("Looks a word up.") && offered.contains("\"Bash\""), "{offered}");
    let told = upstream.requests()[1].json["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&told["role"], &told["content"]), (&json!("tool"), &json!("a leaf")));
}

#[tokio::test]
async fn several_at_once_in_any_order_and_both_forms_beside_a_tool_of_ours() {
    let (server, upstream) = start().await;
    let id = server.session(tools()).await;
    let bash = Call::new("Bash", json!({"command": "echo ours"}));
    upstream.push(Answer::calls([lookup("a", "one"), bash, lookup("b", "two"), lookup("c", "three")]));
    upstream.push(Answer::text("done"));
    let mut stream = server.send(&id, "go").await;
    let mut requested = 0;
    while requested < 3 {
        requested += usize::from(stream.next().await.unwrap().kind == "tool_call.requested");
    }
    server.json(results(&server, &id, &json!({"call_id": "c", "output": "3", "is_error": true}))).await;
    let both = json!({"results": [{"call_id": "b", "output": "2"}, {"call_id": "a", "output": "1"}]});
    server.json(results(&server, &id, &both)).await;
    let rest = stream.rest().await;
    assert_eq!(rest.last().unwrap().kind, "message.completed");
    let messages = upstream.requests()[1].json["messages"].clone();
    let told: Vec<&Value> = messages.as_array().unwrap().iter().filter(|m| m["role"] == "tool").collect();
    assert_eq!(told.len(), 4, "{messages}");
}

#[tokio::test]
async fn no_answer_is_told_to_the_model_and_the_turn_goes_on() {
    let (server, upstream) = start_with("[client_tools]\ntimeout_s = 1").await;
    let id = server.session(tools()).await;
    upstream.push(Answer::calls([lookup("a", "tea")]));
    upstream.push(Answer::text("I could not look it up."));
    let events = server.send(&id, "go").await.rest().await;
    let result = events.iter().find(|event| event.kind == "tool_result").unwrap();
    assert_eq!(
        (&result.data["code"], &result.data["is_error"]),
        (&json!("tool.client_timeout"), &json!(true))
    );
    assert_eq!(events.last().unwrap().kind, "message.completed");
    let late = results(&server, &id, &json!({"call_id": "a", "output": "late"}));
    assert_eq!(server.refused(late).await.0, 409);
}

#[tokio::test]
async fn a_restart_while_waiting_changes_nothing() {
    let (mut server, upstream) = start().await;
    let id = server.session(tools()).await;
    upstream.push(Answer::calls([lookup("a", "tea"), lookup("b", "milk")]));
    upstream.push(Answer::text("done"));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_call.requested").await;
    stream.until("tool_call.requested").await;
    server.json(results(&server, &id, &json!({"call_id": "b", "output": "white"}))).await;
    server.kill_and_restart().await;
    let again = results(&server, &id, &json!({"call_id": "b", "output": "black"}));
    wait_for("the second answer to be refused", || async {
        // Taken up or still waiting to be: in both cases it was answered.
        let request = again.try_clone().unwrap();
        (server.refused(request).await.0 == 409).then_some(())
    })
    .await;
    server.json(results(&server, &id, &json!({"call_id": "a", "output": "green"}))).await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let events = TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await.rest().await;
    assert_eq!(events.iter().filter(|event| event.kind == "tool_call.requested").count(), 2, "asked once");
    assert_eq!(events.last().unwrap().kind, "message.completed");
    let told = upstream.requests().last().unwrap().json["messages"].to_string();
    assert!(told.contains("white") && told.contains("green") && !told.contains("black"), "{told}");
}

#[tokio::test]
async fn a_turn_that_waits_can_be_cancelled() {
    let (server, upstream) = start().await;
    let id = server.session(tools()).await;
    upstream.push(Answer::calls([lookup("a", "tea")]));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_call.requested").await;
    let cancel = format!("/v1/sessions/{id}/responses/{}/cancel", stream.turn);
    assert_eq!(server.request(Method::POST, &cancel).send().await.unwrap().status(), 202);
    assert_eq!(kinds(&stream.rest().await), ["message.cancelled"]);
    let late = results(&server, &id, &json!({"call_id": "a", "output": "late"}));
    assert_eq!(server.refused(late).await.0, 404);
    upstream.push(Answer::text("usable"));
    server.send(&id, "and now?").await.until("message.completed").await;
}

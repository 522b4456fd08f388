//! A disk that several tenants share: one that fills it leaves its end to the others, and what runs can end on it.

use palisade_testkit::upstream::{Answer, Call, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::disasters::{Wrapper, fill_once, seen_by};

fn bash(command: &str) -> Answer {
    Answer::calls([Call::new("Bash", json!({"command": command}))])
}

/// As the tenant that the flood is not of.
async fn other(server: &Server, method: Method, path: &str, body: Value) -> (StatusCode, String) {
    let answer = server.as_other(method, path).json(&body).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// A tenant whose limit is far beyond the disk takes what it can, in bytes and then in files; every request of the other
/// one is answered as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_fills_the_disk_leaves_its_end_to_others() {
    let Some(wrapper) = Wrapper::new("mount -t tmpfs -o size=120m,nr_inodes=10000,mode=755 tmpfs \"$DATA\"")
    else {
        return;
    };
    let upstream = ScriptedUpstream::start().await.unwrap();
    let server = Server::start(&wrapper.path(), &upstream, "").await;
    let hostile = server.session(json!({})).await;
    for flood in [
        "while head -c 1M /dev/zero >> flood; do sleep 0.02; done",
        "rm flood; mkdir d; cd d; while :; do seq 100 | sed s/^/$RANDOM-/ | xargs touch; sleep 0.01; done",
    ] {
        upstream.push(bash(flood));
        upstream.push(Answer::text("done"));
        let events = server.send(&hostile, "go").await.rest().await;
        let result = &events.iter().find(|event| event.kind == "tool_result").unwrap().data;
        assert_eq!(result["code"], "workspace.full", "{result}");
        let put = server.request(Method::PUT, &format!("/v1/sessions/{hostile}/files/more")).body("x");
        assert_eq!(server.refused(put).await, (507, "storage.full".to_owned()));

        let (status, record) = other(&server, Method::POST, "/v1/sessions", json!({})).await;
        assert_eq!(status, 201, "{record}");
        let record: Value = serde_json::from_str(&record).unwrap();
        let session = format!("/v1/sessions/{}", record["id"].as_str().unwrap());
        for number in 0..3 {
            let path = format!("{session}/files/{number}");
            let put = server.as_other(Method::PUT, &path).body(vec![7; 300_000]).send().await.unwrap();
            assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
        }
        upstream.push(bash("head -c 300k /dev/zero > mine && mkdir -p m && touch m/{1..50} && echo fine"));
        upstream.push(Answer::text("done"));
        let message = format!("{session}/messages");
        let (status, events) = other(&server, Method::POST, &message, json!({"message": "go"})).await;
        assert!(status == 200 && events.contains("fine") && events.contains("message.completed"), "{events}");
        let ready = server.request(Method::GET, "/ready").send().await.unwrap();
        assert_eq!(ready.status(), 200, "{}", ready.text().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_has_a_reserve_for_what_ends() {
    let Some(wrapper) = Wrapper::new("mount -t tmpfs -o size=48m,mode=755 tmpfs \"$DATA\"") else { return };
    let upstream = ScriptedUpstream::start().await.unwrap();
    let server = Server::start(&wrapper.path(), &upstream, "").await;
    let (one, two) = (server.session(json!({})).await, server.session(json!({})).await);
    let reserve = seen_by(&server).join("data/reserve");
    let is_held = || async { reserve.metadata().is_ok_and(|found| found.len() > 1 << 20).then_some(()) };
    wait_for("the reserve", is_held).await;
    upstream.push(bash("sleep 60"));
    upstream.push(Answer::text("never said"));
    let mut stream = server.send(&one, "go").await;
    stream.until("tool_use.executing").await;
    let filler = fill_once(&server);
    wait_for("the end of the reserve", || async { (!reserve.exists()).then_some(()) }).await;

    // What begins something is refused; what ends something is done.
    let create = server.request(Method::POST, "/v1/sessions").json(&json!({}));
    assert_eq!(server.refused(create).await, (507, "storage.full".to_owned()));
    let message = server.request(Method::POST, &format!("/v1/sessions/{two}/messages"));
    assert_eq!(
        server.refused(message.json(&json!({"message": "go"}))).await,
        (507, "storage.full".to_owned())
    );
    let ready = server.request(Method::GET, "/ready").send().await.unwrap();
    let (status, ready): (_, Value) = (ready.status(), ready.json().await.unwrap());
    assert_eq!((status.as_u16(), &ready["parts"]["storage"]["ok"]), (503, &json!(false)));
    let events = stream.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.error", "{:?}", events.last());
    let deleted = server.request(Method::DELETE, &format!("/v1/sessions/{two}")).send().await.unwrap();
    assert_eq!(deleted.status(), 204);

    std::fs::remove_file(&filler).unwrap();
    wait_for("the reserve", is_held).await;
    upstream.push(Answer::text("ok"));
    server.send(&one, "and now?").await.until("message.completed").await;
    server.session(json!({})).await;
}

//! The HTTP face on a real loopback port: who may call, what a stream looks like, what a bad request gets.

use palisade_planner::{PlannerError, serve};
use palisade_protocol::limits::PLANNER_REQUEST_BYTES_MAX;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[expect(clippy::unwrap_used, reason = "a test's own frame")]
async fn with_server<F: Future<Output = ()>>(test: impl FnOnce(String, reqwest::Client) -> F) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(listener, "secret".into(), async move { drop(stopped.await) });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let testing = async {
        test(base, client).await;
        drop(stop);
    };
    let (served, ()) = tokio::join!(serving, testing);
    served.unwrap();
}

#[tokio::test]
async fn only_the_token_opens() {
    with_server(|base, client| async move {
        for token in ["", "Bearer wrong!", "secret", "Basic secret"] {
            let sent =
                client.get(format!("{base}/models")).header("authorization", token).send().await.unwrap();
            assert_eq!(sent.status(), 401, "{token}");
            let body: Value = sent.json().await.unwrap();
            assert_eq!(body["error"]["type"], "invalid_request_error");
        }
        let listed: Value = client
            .get(format!("{base}/models"))
            .bearer_auth("secret")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(listed["data"][0]["id"], palisade_planner::MODEL_NAME);
    })
    .await;
}

#[tokio::test]
async fn whole_and_streamed_answers() {
    with_server(|base, client| async move {
        let post = |body: Value| {
            client.post(format!("{base}/chat/completions")).bearer_auth("secret").json(&body).send()
        };
        let request = json!({"model": "any", "messages": [{"role": "user", "content": "Hello"}]});
        let whole: Value = post(request.clone()).await.unwrap().json().await.unwrap();
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
        let mut streaming = request;
        streaming["stream"] = true.into();
        let streamed = post(streaming).await.unwrap();
        assert_eq!(streamed.headers()["content-type"], "text/event-stream");
        let text = streamed.text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"));
        let said: String = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(said, whole["choices"][0]["message"]["content"]);
        assert!(text.lines().count() > 20, "in small pieces");
    })
    .await;
}

#[tokio::test]
async fn bad_requests_get_clean_errors() {
    with_server(|base, client| async move {
        let over = "x".repeat(PLANNER_REQUEST_BYTES_MAX + 1);
        for (method, path, body, status) in [
            ("POST", "/chat/completions", "", 400),
            ("POST", "/chat/completions", "{\"messages\":5}", 400),
            ("POST", "/chat/completions", over.as_str(), 413),
            ("GET", "/chat/completions", "", 405),
            ("GET", "/elsewhere", "", 404),
        ] {
            let method = method.parse::<reqwest::Method>().unwrap();
            let sent =
                client.request(method, format!("{base}{path}")).bearer_auth("secret").body(body.to_owned());
            let answer = sent.send().await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            let body: Value = answer.json().await.unwrap();
            assert!(body["error"]["message"].is_string(), "{path}: {body}");
        }
    })
    .await;
}

#[tokio::test]
async fn other_machines_are_not_served() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(listener, "secret".into(), std::future::ready(())).await;
    assert!(matches!(refused, Err(PlannerError::NotLoopback(_))), "{refused:?}");
}

//! A turn's events as a response body: frames exactly as they were rendered, and padded comments while there is
//! silence. The same for the live answer, a resume and a replay.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use palisade_protocol::limits::{KEEP_ALIVE_BYTES, KEEP_ALIVE_S};
use palisade_runtime::{Runtime, TurnStream};

/// `: keep-alive` and padding: short comments are held back by proxies that buffer (decision 11).
fn keep_alive() -> Bytes {
    let mut comment = Vec::with_capacity(KEEP_ALIVE_BYTES);
    comment.extend_from_slice(b": keep-alive ");
    comment.resize(KEEP_ALIVE_BYTES - 2, b'.');
    comment.extend_from_slice(b"\n\n");
    comment.into()
}

/// The answer that carries a turn. It ends with the turn's terminal event, or without one when the server
/// drains: the client then resumes.
pub(crate) fn respond(runtime: Runtime, turn: TurnStream) -> Response {
    let id = HeaderValue::from_str(turn.turn.as_str());
    let body = stream::unfold(
        (runtime, turn.events, turn.place),
        |(runtime, mut events, place)| async move {
            let chunk = tokio::select! {
                () = runtime.drained() => return None,
                next = events.next() => match next {
                    Ok(Some(events)) => Ok(events.iter().map(|event| event.frame()).collect::<String>().into()),
                    Ok(None) => return None,
                    // Cutting the connection tells the client to resume; a made-up event would not be in the log.
                    Err(error) => Err(error),
                },
                () = tokio::time::sleep(Duration::from_secs(KEEP_ALIVE_S)) => match events.check_alive().await {
                    Ok(()) => Ok(keep_alive()),
                    Err(error) => Err(error),
                },
            };
            Some((chunk, (runtime, events, place)))
        },
    );
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    // The contract closes the connection right after the last event.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Ok(id) = id {
        headers.insert("x-response-id", id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_padded_and_is_no_event() {
        let comment = keep_alive();
        assert_eq!(comment.len(), KEEP_ALIVE_BYTES);
        assert!(comment.starts_with(b": ") && comment.ends_with(b"\n\n"));
        assert_eq!(comment.iter().filter(|byte| **byte == b'\n').count(), 2);
    }
}

//! Creating a session: one HTTP round trip, after which the session is durable and its folders exist.

use std::time::Instant;

use palisade_testkit::Server;
use serde_json::json;

use super::row::Row;

/// First requests, which open the connection and fill caches.
const WARM_UP: usize = 10;

pub(super) async fn measure(server: &Server, count: usize, health: &Row, append: &Row) -> Row {
    for _ in 0..WARM_UP {
        server.session(json!({})).await;
    }
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        server.session(json!({})).await;
        samples.push(began.elapsed());
    }
    Row::times("create a session", samples).goal(3.0).above(&[health, append])
}

//! Waiting for a condition, with a deadline: what tests do instead of sleeping.

use std::time::{Duration, Instant};

/// Longest wait; generous, because a machine may be busy, and only ever used up by a test that fails.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `condition` gives something.
///
/// # Panics
/// When it has given nothing within 30 seconds.
#[expect(clippy::panic, reason = "a test that waits in vain has failed")]
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        if let Some(found) = condition().await {
            return found;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited {} s in vain for: {what}", DEADLINE.as_secs());
}

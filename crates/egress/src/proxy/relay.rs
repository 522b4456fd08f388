//! Bytes from one leg to the other, both ways at once, in one task. An end is passed on at once; half-closed is fine; a buffer is held only
//! while bytes pass.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{Shared, open::Way};
use crate::{Reason, Stream};

/// Relays until both sides are done, one breaks, or nothing passes for too long.
pub(super) async fn relay(shared: &Shared, way: &Way, client: &Stream, upstream: &Stream) -> Reason {
    let began = Instant::now();
    let last_ms = AtomicU64::new(0);
    let up =
        Pump { shared, way, began, last_ms: &last_ms, from: client, to: upstream, passed: &way.traffic.up };
    let down = Pump { from: upstream, to: client, passed: &way.traffic.down, ..up };
    let both = async {
        tokio::try_join!(
            up.run(Reason::ClientBroke, Reason::UpstreamBroke),
            down.run(Reason::UpstreamBroke, Reason::ClientBroke)
        )
    };
    tokio::select! {
        ended = both => ended.err().unwrap_or(Reason::Done),
        () = silence(began, &last_ms, shared.settings.idle_timeout) => Reason::IdleTimeout,
    }
}

/// One direction.
#[derive(Clone, Copy)]
struct Pump<'p> {
    shared: &'p Shared,
    way: &'p Way,
    began: Instant,
    last_ms: &'p AtomicU64,
    from: &'p Stream,
    to: &'p Stream,
    passed: &'p AtomicU64,
}

impl Pump<'_> {
    async fn run(self, from_broke: Reason, to_broke: Reason) -> Result<(), Reason> {
        loop {
            self.from.readable().await.map_err(|_| from_broke)?;
            let mut buffer = self.shared.buffers.take();
            let count = match self.from.try_read(&mut buffer) {
                Ok(0) => {
                    self.shared.buffers.give_back(buffer);
                    self.to.finish_writing();
                    return Ok(());
                }
                Ok(count) => count,
                Err(error) => {
                    self.shared.buffers.give_back(buffer);
                    if error.kind() == io::ErrorKind::WouldBlock {
                        continue;
                    }
                    return Err(from_broke);
                }
            };
            let granted = self.way.door.usage.take_bytes(count);
            let written = self.to.write_counted(&buffer[..granted], self.passed).await;
            self.shared.buffers.give_back(buffer);
            written.map_err(|_| to_broke)?;
            self.last_ms.store(elapsed_ms(self.began), Relaxed);
            if granted < count {
                return Err(Reason::SessionBytes);
            }
        }
    }
}

/// Returns when nothing has passed for this long; looks again only when that could be.
async fn silence(began: Instant, last_ms: &AtomicU64, timeout: Duration) {
    loop {
        let since = Duration::from_millis(elapsed_ms(began).saturating_sub(last_ms.load(Relaxed)));
        let Some(left) = timeout.checked_sub(since).filter(|left| !left.is_zero()) else { return };
        tokio::time::sleep(left).await;
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

//! The time, in the wire's unit, as durations can rely on it. It begins with the wall clock and goes on with the machine's monotonic
//! one, so that a wall clock that jumps (a machine that wakes, a bad time server) ends nothing and deletes nothing. A jump that
//! stays is followed after a grace, and logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Corrections up to this, in seconds, are followed at once: time servers make them.
const CORRECTION_MAX_S: f64 = 5.0;
/// How long a jump has to stay before it is believed.
pub(crate) const JUMP_GRACE: Duration = Duration::from_secs(600);

static CLOCK: Mutex<Option<Clock>> = Mutex::new(None);

/// Unix seconds with fractions (contract §1).
pub(crate) fn now() -> f64 {
    let wall = Timestamp::now().as_microsecond() as f64 / 1e6;
    // A clock is whole after any panic, so a poisoned lock is still good.
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // Read behind the lock, so that no two readings come in the wrong order.
    let monotonic = Instant::now();
    clock.get_or_insert_with(|| Clock::new(wall, monotonic)).read(wall, monotonic)
}

/// Today in UTC, `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    let today = Timestamp::from_microsecond((now() * 1e6) as i64).unwrap_or_else(|_| Timestamp::now());
    today.to_string().chars().take(10).collect()
}

/// What the two clocks said last when they agreed.
struct Clock {
    wall: f64,
    monotonic: Instant,
    jump: Option<Jump>,
}

/// A wall clock that says something else than the monotonic one.
struct Jump {
    by_s: f64,
    since: Instant,
}

impl Clock {
    fn new(wall: f64, monotonic: Instant) -> Self {
        Self { wall, monotonic, jump: None }
    }

    fn read(&mut self, wall: f64, monotonic: Instant) -> f64 {
        let steady = self.wall + monotonic.saturating_duration_since(self.monotonic).as_secs_f64();
        let by_s = wall - steady;
        if by_s.abs() <= CORRECTION_MAX_S {
            if self.jump.is_some() {
                tracing::warn!("the wall clock is back where it was");
            }
            *self = Self::new(wall, monotonic);
            return wall;
        }
        match &self.jump {
            Some(jump) if (jump.by_s - by_s).abs() <= CORRECTION_MAX_S => {
                if monotonic.saturating_duration_since(jump.since) >= JUMP_GRACE {
                    tracing::warn!(
                        by_s,
                        "the wall clock stays where it jumped to and is believed: what is over by it ends now"
                    );
                    *self = Self::new(wall, monotonic);
                    return wall;
                }
            }
            _ => {
                let grace_s = JUMP_GRACE.as_secs();
                tracing::warn!(
                    by_s,
                    grace_s,
                    "THE WALL CLOCK JUMPED: time goes on as before, and the jump is believed if it stays"
                );
                self.jump = Some(Jump { by_s, since: monotonic });
            }
        }
        steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS_40_S: f64 = 40.0 * 86400.0;

    #[test]
    fn a_jump_is_believed_when_it_stays_and_a_correction_at_once() {
        let (start, at) = (Instant::now(), |seconds: f64| Duration::from_secs_f64(seconds));
        let mut clock = Clock::new(1000.0, start);
        // Each is when it is read by the monotonic clock, what the wall clock says beyond that, and what is believed.
        for (seconds, beyond, believed) in [
            (1.0, 0.0, 0.0),
            (2.0, -0.4, -0.4),
            (3.0, DAYS_40_S, -0.4),
            (500.0, DAYS_40_S + 1.0, -0.4),
            (501.0, 0.2, 0.2),
            (502.0, -DAYS_40_S, 0.2),
            (1101.0, -DAYS_40_S, 0.2),
            // Another jump has a grace of its own.
            (1101.5, DAYS_40_S, 0.2),
            (1103.0, DAYS_40_S, 0.2),
            (1702.0, DAYS_40_S, DAYS_40_S),
            (1703.0, DAYS_40_S + 4.0, DAYS_40_S + 4.0),
        ] {
            let read = clock.read(1000.0 + seconds + beyond, start + at(seconds));
            assert!((read - (1000.0 + seconds + believed)).abs() < 0.001, "at {seconds}: {read}");
        }
    }
}

//! What a run did, counted, so that a green run can be seen to have tried something.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Counts by name.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub(crate) fn count(&self, name: impl Into<String>) {
        self.add(name, 1);
    }

    pub(crate) fn add(&self, name: impl Into<String>, more: u64) {
        *self.lock().entry(name.into()).or_default() += more;
    }

    /// The larger of what was seen before and this.
    pub(crate) fn at_most(&self, name: impl Into<String>, seen: u64) {
        let mut counts = self.lock();
        let most = counts.entry(name.into()).or_default();
        *most = seen.max(*most);
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.lock().get(name).copied().unwrap_or(0)
    }

    // A count is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().iter().try_for_each(|(name, count)| writeln!(f, "{count:>7}  {name}"))
    }
}

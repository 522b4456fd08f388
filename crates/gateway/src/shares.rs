//! Fair shares of what all callers use together: requests in flight, bytes of bodies. One owner may take much while there is
//! room, and a part is kept for those who have little. It must never let one owner, or several, take that part, too.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much may be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// By one owner.
    pub(crate) owner_max: usize,
    /// By all together, before only owners with little get more.
    pub(crate) open_max: usize,
    /// By all together, in any case.
    pub(crate) all_max: usize,
    /// What counts as little.
    pub(crate) little: usize,
}

/// Why nothing more was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This owner has as much as it may have.
    Owner,
    /// All together have.
    All,
}

/// What is shared, and who has how much of it. Owners that have nothing are not kept.
pub(crate) struct Shares<K> {
    bounds: Bounds,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    all: usize,
    by_owner: HashMap<K, usize>,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let taken = Taken { all: 0, by_owner: HashMap::new() };
        Arc::new(Self { bounds, taken: Mutex::new(taken) })
    }

    /// Takes this much for the owner, until the share is dropped.
    pub(crate) fn take(self: &Arc<Self>, owner: K, amount: usize) -> Result<Share<K>, Refused> {
        let mut share = self.nothing_of(owner);
        share.grow(amount)?;
        Ok(share)
    }

    /// A share that has nothing yet.
    pub(crate) fn nothing_of(self: &Arc<Self>, owner: K) -> Share<K> {
        Share { shares: Arc::clone(self), owner, amount: 0 }
    }

    /// What all together have.
    pub(crate) fn all(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an owner has; it goes back when this is dropped.
pub(crate) struct Share<K: Eq + Hash + Clone> {
    shares: Arc<Shares<K>>,
    owner: K,
    amount: usize,
}

impl<K: Eq + Hash + Clone> Share<K> {
    /// Takes more, or nothing.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Refused> {
        let bounds = self.shares.bounds;
        let mut taken = self.shares.lock();
        let of_owner = taken.by_owner.get(&self.owner).copied().unwrap_or(0).saturating_add(more);
        let all = taken.all.saturating_add(more);
        if of_owner > bounds.owner_max {
            return Err(Refused::Owner);
        }
        if all > bounds.all_max || (all > bounds.open_max && of_owner > bounds.little) {
            return Err(Refused::All);
        }
        taken.all = all;
        match taken.by_owner.get_mut(&self.owner) {
            Some(amount) => *amount = of_owner,
            None => drop(taken.by_owner.insert(self.owner.clone(), of_owner)),
        }
        self.amount += more;
        Ok(())
    }
}

impl<K: Eq + Hash + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.all -= self.amount;
        if let Some(amount) = taken.by_owner.get_mut(&self.owner) {
            *amount -= self.amount;
            if *amount == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { owner_max: 50, open_max: 60, all_max: 80, little: 10 };

    #[test]
    fn who_takes_all_it_can_leaves_a_part_for_others() {
        let shares = Shares::new(BOUNDS);
        let mut greedy = shares.take("greedy", 50).ok().unwrap();
        assert_eq!(greedy.grow(1), Err(Refused::Owner));
        let mut second = shares.take("second", 10).ok().unwrap();
        assert_eq!(second.grow(1), Err(Refused::All), "the open part is used up");
        let other = shares.take("other", 10).ok().unwrap();
        let last = shares.take("last", 10).ok().unwrap();
        assert_eq!(shares.take("late", 1).err(), Some(Refused::All), "the bound of all holds for everybody");
        drop((greedy, other));
        assert_eq!(second.grow(30), Ok(()));
        drop((second, last));
        assert_eq!((shares.all(), shares.lock().by_owner.len()), (0, 0));
    }

    #[test]
    fn what_was_refused_takes_nothing() {
        let shares = Shares::new(BOUNDS);
        let mut share = shares.take("a", 40).ok().unwrap();
        assert_eq!(share.grow(usize::MAX), Err(Refused::Owner));
        assert_eq!(shares.take("a", 11).err(), Some(Refused::Owner));
        assert_eq!(shares.all(), 40);
        drop(share);
        assert_eq!(shares.all(), 0);
    }
}

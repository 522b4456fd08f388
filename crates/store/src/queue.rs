//! What waits for the writer: a queue for each owner, of a bounded size, from which the writer takes in turn. An owner is a
//! tenant, or the server itself; whoever floods the writer waits behind its own writes and nobody else does.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::StoreError;
use crate::write::Write;

/// What one owner's waiting writes may weigh together, in KiB; beyond it callers wait for room.
const OWNER_WEIGHT_MAX: u32 = 8 * 1024;
/// What a write weighs beside its bytes, in KiB: 1024 small ones may wait.
const WRITE_WEIGHT: u32 = 8;
/// Writes in one transaction.
pub(crate) const GROUP_MAX: usize = 256;
/// What a group takes no further write after, in bytes.
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// What a group takes no further write after, in work: how long the others wait while it is written.
const GROUP_WORK_MAX: u32 = 256;
/// The work of a write that has statements of its own. An append is one row among many: its work is 1.
const WRITE_WORK: u32 = 8;

pub(crate) type Answer = Result<u64, StoreError>;

/// A write and who waits for it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) write: Write,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// Its owner's room is taken until the writer has it.
    _room: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Queue {
    inner: Mutex<Inner>,
    /// Rung when there is something to do.
    filled: Notify,
    /// Numbers owners.
    owners: AtomicU64,
    /// Whether the writer has ended.
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: HashMap<u64, VecDeque<Waiting>>,
    /// The owners of something that waits, each once, in the order in which they are taken from.
    turns: VecDeque<u64>,
    is_closed: bool,
}

/// One owner's way to the writer; cheap to clone. When the last of all owners is gone, so is the writer.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    queue: Arc<Handle>,
    id: u64,
    room: Arc<Semaphore>,
}

/// What owners share. Closes the queue with the last of them.
#[derive(Debug)]
struct Handle(Arc<Queue>);

/// The writer's end. Whoever waits is told when it goes.
#[derive(Debug)]
pub(crate) struct Groups(Arc<Queue>);

/// A queue without anything in it.
pub(crate) fn channel() -> (Owner, Groups) {
    let queue = Arc::new(Queue::default());
    (Owner::of(Arc::new(Handle(queue.clone()))), Groups(queue))
}

impl Owner {
    fn of(queue: Arc<Handle>) -> Self {
        let id = queue.0.owners.fetch_add(1, Ordering::Relaxed);
        Self { queue, id, room: Arc::new(Semaphore::new(OWNER_WEIGHT_MAX as usize)) }
    }

    /// Another owner at the same writer.
    pub(crate) fn another(&self) -> Self {
        Self::of(self.queue.clone())
    }

    /// Waits for room, and then for the writer.
    pub(crate) async fn write(&self, write: Write) -> Answer {
        let kib = u32::try_from(write.bytes() / 1024).unwrap_or(u32::MAX);
        let weight = kib.saturating_add(WRITE_WEIGHT).min(OWNER_WEIGHT_MAX);
        let room = self.room.clone().acquire_many_owned(weight).await.map_err(|_| StoreError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        self.queue.0.push(self.id, Waiting { write, reply, _room: room })?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Lets what waits be written, refuses what comes later, and returns when the writer has ended.
    pub(crate) async fn close(&self) {
        self.queue.0.close();
        // The sender is as old as the queue.
        let _ = self.queue.0.ended.subscribe().wait_for(|has_ended| *has_ended).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Queue {
    fn push(&self, owner: u64, waiting: Waiting) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(StoreError::Stopped);
        }
        let own = inner.waiting.entry(owner).or_default();
        own.push_back(waiting);
        if own.len() == 1 {
            inner.turns.push_back(owner);
        }
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    // Whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    /// Waits for writes; the next group of them, one of each owner in turn. `None` when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Vec<Waiting>> {
        loop {
            let (group, is_closed) = {
                let mut inner = self.0.lock();
                (inner.take_group(), inner.is_closed)
            };
            match group {
                group if !group.is_empty() => return Some(group),
                _ if is_closed => return None,
                _ => self.0.filled.notified().await,
            }
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.0.close();
        // Nobody takes them any more; without their places for an answer their callers know.
        self.0.lock().waiting.clear();
        self.0.ended.send_replace(true);
    }
}

impl Inner {
    fn take_group(&mut self) -> Vec<Waiting> {
        let (mut group, mut bytes, mut work) = (Vec::new(), 0, 0);
        while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX && work < GROUP_WORK_MAX {
            let Some(owner) = self.turns.pop_front() else { break };
            let Some(own) = self.waiting.get_mut(&owner) else { continue };
            if let Some(waiting) = own.pop_front() {
                bytes += waiting.write.bytes();
                work += if waiting.write.as_append().is_some() { 1 } else { WRITE_WORK };
                group.push(waiting);
            }
            if own.is_empty() {
                self.waiting.remove(&owner);
            } else {
                self.turns.push_back(owner);
            }
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use palisade_protocol::{SessionId, TenantName};

    use super::*;

    fn small() -> Write {
        Write::Beat
    }

    fn large() -> Write {
        let session = SessionId::from_random([7; 6]);
        Write::SetMetadata { session, key: "k".into(), value: "x".repeat(600 * 1024).into() }
    }

    fn named(name: &str) -> Write {
        let tenant = TenantName::parse(name).unwrap();
        Write::DeleteSession { tenant, session: SessionId::from_random([7; 6]), now: 0.0 }
    }

    fn name_of(waiting: &Waiting) -> &str {
        match &waiting.write {
            Write::DeleteSession { tenant, .. } => tenant.as_str(),
            _ => "",
        }
    }

    /// Asks, and returns once the write waits.
    fn ask(owner: &Owner, write: Write) -> tokio::task::JoinHandle<Answer> {
        let owner = owner.clone();
        tokio::runtime::Handle::current().spawn(async move { owner.write(write).await })
    }

    async fn until_waiting(groups: &Groups, count: usize) {
        while groups.0.lock().waiting.values().map(VecDeque::len).sum::<usize>() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn owners_are_taken_from_in_turn() {
        let (flooding, mut groups) = channel();
        let other = flooding.another();
        let asked: Vec<_> = (0..100).map(|_| ask(&flooding, named("flood"))).collect();
        until_waiting(&groups, 100).await;
        let last = [ask(&other, named("other")), ask(&other, named("other"))];
        until_waiting(&groups, 102).await;
        let first = groups.next().await.unwrap();
        let names: Vec<&str> = first.iter().map(name_of).collect();
        assert_eq!(
            names[..5],
            ["flood", "other", "flood", "other", "flood"],
            "whoever came last waits for one"
        );
        assert_eq!(names.len(), (GROUP_WORK_MAX / WRITE_WORK) as usize, "a group's work is bounded");
        drop((first, groups));
        for asked in asked.into_iter().chain(last) {
            assert!(matches!(asked.await.unwrap(), Err(StoreError::Stopped)), "told when the writer goes");
        }
    }

    #[tokio::test]
    async fn a_group_has_bytes_and_an_owner_has_room() {
        let (flooding, mut groups) = channel();
        let other = flooding.another();
        let asked: Vec<_> = (0..100).map(|_| ask(&flooding, large())).collect();
        until_waiting(&groups, 8).await;
        let last = ask(&other, small());
        while groups.0.lock().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        let held = groups.0.lock().waiting.values().map(VecDeque::len).max();
        assert!(held.is_some_and(|held| held <= 13), "8 MiB: {held:?}");
        let group = groups.next().await.unwrap();
        assert!(group.len() <= 3 && group.iter().any(|waiting| matches!(waiting.write, Write::Beat)));
        drop((group, groups, last, asked));
    }

    #[tokio::test]
    async fn what_was_asked_before_the_close_is_written() {
        let (owner, mut groups) = channel();
        let other = owner.another();
        let asked = [ask(&owner, small()), ask(&other, small())];
        until_waiting(&groups, 2).await;
        let closing = tokio::runtime::Handle::current().spawn(async move { other.close().await });
        while !groups.0.lock().is_closed {
            tokio::task::yield_now().await;
        }
        assert!(matches!(owner.write(small()).await, Err(StoreError::Stopped)));
        for waiting in groups.next().await.unwrap() {
            waiting.reply.send(Ok(1)).unwrap();
        }
        assert!(groups.next().await.is_none());
        assert!(!closing.is_finished());
        drop(groups);
        closing.await.unwrap();
        for asked in asked {
            assert_eq!(asked.await.unwrap().unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn the_writer_ends_with_the_last_owner() {
        let (owner, mut groups) = channel();
        let other = owner.another();
        drop(owner);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), groups.next()).await.is_err());
        drop(other);
        assert!(groups.next().await.is_none());
    }
}

//! A hand that lies: whatever comes through the control socket, the server loses one sandbox and nothing else.

use palisade_hand_protocol::{
    BACKGROUND_TAIL_BYTES_MAX, Left, MESSAGE_BYTES_MAX, PROCESS_NAME_BYTES_MAX, Reply,
};
use rustix::net::{SendFlags, send};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Cgroups, Limits};

/// Deterministic (splitmix64), so that a failure can be seen again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// Replies to calls that are, that were, and that never will be.
    fn reply(&mut self) -> Reply {
        let id = self.roll(6);
        match self.roll(6) {
            0 => Reply::Started { id, pid: -1, log: Some("/etc/passwd".into()) },
            1 => Reply::Exited {
                id,
                code: Some(-1),
                signal: Some(99),
                timed_out: id.is_multiple_of(2),
                left: self.left(),
            },
            2 => Reply::Refused { id, message: "x".repeat(60_000) },
            3 => Reply::TurnEnded { id: u64::MAX - id },
            4 => Reply::Status { key: "k".repeat(self.roll(80) as usize), value: "v".repeat(2_000) },
            _ => Reply::Status { key: "k".into(), value: "v".into() },
        }
    }

    fn left(&mut self) -> Left {
        let names = vec!["\u{1b}[31mä".repeat(self.roll(40) as usize); self.roll(40) as usize];
        Left { ended: names.clone(), adrift: names, tail: "ä".repeat(self.roll(1_500) as usize) }
    }

    fn message(&mut self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.reply()).unwrap();
        // One in eight is damaged, which is the end of it.
        if self.roll(8) == 0 {
            let at = self.roll(bytes.len() as u64) as usize;
            bytes[at] = self.roll(256) as u8;
        }
        bytes
    }
}

async fn lied_to(seed: u64, messages: Vec<Vec<u8>>) -> String {
    let (control, theirs) = Control::pair().unwrap();
    let group = Cgroups::none("not asked for")
        .make(&palisade_protocol::TenantName::parse("acme").unwrap(), &Limits::default())
        .unwrap();
    let shared = Shared::new(control, group, CancellationToken::new());
    let (id, mut news) = shared.open_call().unwrap();
    lock(&shared.background).insert(id, (1, "/log".into()));
    let (ready, _is_ready) = oneshot::channel();
    let (status, mut updates) = mpsc::channel(STATUS_UPDATES_MAX);
    let mut outlets = Outlets { ready: Some(ready), status };
    let liar = std::thread::spawn(move || {
        // Until the other side has had enough.
        messages.iter().all(|message| send(&theirs, message, SendFlags::NOSIGNAL).is_ok())
    });
    let reason = tokio::time::timeout(Duration::from_secs(20), listen(&shared, &mut outlets));
    let reason = reason.await.unwrap_or_else(|_| panic!("seed {seed}: it listens for ever"));
    let notes = shared.notes.take();
    drop(shared);
    let is_bounded = |names: &[String]| {
        names.len() <= 8
            && names.iter().all(|name| name.len() <= PROCESS_NAME_BYTES_MAX && !name.contains('\u{1b}'))
    };
    assert!(
        notes.len() <= 16
            && notes.iter().all(|note| match note {
                Note::Ended(names) | Note::Adrift(names) => is_bounded(names),
                Note::Lost(_) => true,
                Note::Background { tail, .. } => tail.len() <= BACKGROUND_TAIL_BYTES_MAX,
            }),
        "seed {seed}: {notes:?}"
    );
    liar.join().unwrap();
    let mut told = 0;
    while news.try_recv().is_ok() {
        told += 1;
    }
    assert!(told <= NEWS_MAX, "seed {seed}");
    while let Ok((key, value)) = updates.try_recv() {
        assert!(status_is_valid(&key, &value), "seed {seed}: {key}");
    }
    reason
}

#[tokio::test]
async fn a_lying_hand_costs_its_own_sandbox() {
    let mut reasons = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let messages = (0..dice.roll(40)).map(|_| dice.message()).collect();
        let reason = lied_to(seed, messages).await;
        reasons.insert(reason.split(':').next().unwrap_or_default().to_owned());
    }
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["its control socket", "its first process ended"]);
}

#[tokio::test]
async fn a_message_over_the_limit_is_cut_and_so_is_none() {
    let long = Reply::Status { key: "k".into(), value: "v".repeat(2 * MESSAGE_BYTES_MAX) };
    let reason = lied_to(0, vec![serde_json::to_vec(&long).unwrap()]).await;
    assert!(reason.starts_with("its control socket"), "{reason}");
}

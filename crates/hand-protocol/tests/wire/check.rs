// What must hold for any bytes that arrive where a message is expected; shared with the fuzz target of the same name.
// Plain comments: a target includes this file in its own module.

use palisade_hand_protocol::{FileOp, FileResult, LaunchSpec, Reply, Request, status_is_valid};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Nothing panics, and what is understood is understood the same way again.
pub(crate) fn check(bytes: &[u8]) {
    same_again::<Request>(bytes);
    same_again::<Reply>(bytes);
    same_again::<FileOp>(bytes);
    same_again::<FileResult>(bytes);
    same_again::<LaunchSpec>(bytes);
    if let Ok(Reply::Status { key, value }) = serde_json::from_slice(bytes)
        && status_is_valid(&key, &value)
    {
        assert!(key.is_ascii() && !key.is_empty() && key.len() <= 64 && value.len() <= 1024);
    }
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&message).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(message, again);
}

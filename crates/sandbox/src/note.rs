//! What happened inside that no call was told of when it happened, for whoever makes the next one. The hand says it, so each
//! part is bounded here.

use std::sync::{Mutex, PoisonError};

use palisade_hand_protocol::{BACKGROUND_TAIL_BYTES_MAX, LEFT_NAMED_MAX, Left, PROCESS_NAME_BYTES_MAX};

use crate::RunExit;

/// Notes that wait; later ones are dropped.
const NOTES_MAX: usize = 16;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// These programs were still running when their command ended, and ended with it.
    Ended(Vec<String>),
    /// These have left their command's session and run until the turn ends.
    Adrift(Vec<String>),
    /// The sandbox is a new one, and so many background commands ended with the one before.
    Lost(usize),
    /// A background command has ended.
    Background {
        /// Its pid inside.
        pid: i32,
        /// How.
        exit: RunExit,
        /// Where its output is, as a path inside.
        log: String,
        /// The end of that.
        tail: String,
    },
}

/// The notes of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<Note>>);

impl Notes {
    pub(crate) fn add(&self, note: Note) {
        let mut notes = self.lock();
        if notes.len() < NOTES_MAX {
            notes.push(note);
        }
    }

    /// What a command of the foreground left.
    pub(crate) fn add_left(&self, left: Left) {
        for (names, note) in [(left.ended, Note::Ended as fn(_) -> _), (left.adrift, Note::Adrift)] {
            let names: Vec<_> =
                names.iter().take(LEFT_NAMED_MAX).map(|name| cut(name, PROCESS_NAME_BYTES_MAX)).collect();
            if !names.is_empty() {
                self.add(note(names));
            }
        }
    }

    pub(crate) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.lock())
    }

    // The list is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a background command's output, as far as it is told.
pub(crate) fn tail(text: &str) -> String {
    let from = text.len().saturating_sub(BACKGROUND_TAIL_BYTES_MAX);
    text[text.ceil_char_boundary(from)..].to_owned()
}

fn cut(text: &str, bytes_max: usize) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

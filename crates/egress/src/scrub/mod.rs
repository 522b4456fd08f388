//! Taking secrets out of what an upstream sends back, in every form in which they could be read again, whatever pieces it comes in. What is
//! put in the place of a form is as long as the form, so that lengths, ranges and whatever counts bytes stay true. What cannot be read
//! for certain goes nowhere: whoever is given less than the whole sees a broken connection. Pure.

mod decode;
mod forms;
mod packed;
mod spelling;
mod wash;

use std::sync::Arc;

use palisade_protocol::CredentialName;
use secrecy::{ExposeSecret as _, SecretString};

use forms::{Form, Places};
pub(crate) use wash::{Wash, WashFault};

/// Takes secrets out of a stream of bytes. Only what may be the beginning of a form waits for what comes after it.
#[derive(Clone)]
pub struct Scrubber {
    forms: Arc<Forms>,
    /// What has come and may be the beginning of a form.
    held: Vec<u8>,
    mask: Mask,
}

/// The forms of all secrets.
#[derive(Default)]
struct Forms {
    /// Each with the mark of its secret.
    all: Vec<(Form, Arc<[u8]>)>,
    /// Which of them may begin with a byte.
    by_first_byte: Vec<Vec<usize>>,
    /// Which of `lists` is of those that may begin with a letter or digit and another byte: nearly always the first, which is empty, so
    /// that most places of a text cost one look.
    by_two_bytes: Vec<u16>,
    lists: Vec<Vec<usize>>,
    bytes_max: usize,
}

/// What is written over the bytes of a form: the mark, as much of it as there is room for, then asterisks.
#[derive(Clone, Default)]
struct Mask {
    mark: Arc<[u8]>,
    /// How many bytes of the mark are written.
    written: usize,
    /// How many of the bytes that are held it covers, from their first on.
    left: usize,
    /// Whether there ever was one.
    found: bool,
}

impl Scrubber {
    /// For the secret of this name. `None` where it is too short to be told from other text.
    pub fn new(name: &CredentialName, secret: &SecretString) -> Option<Self> {
        let scrubber = Self::of([(name, secret)]);
        (!scrubber.forms.all.is_empty()).then_some(scrubber)
    }

    /// For all of these; those that are too short to be told from other text are not looked for.
    pub(crate) fn of<'s>(secrets: impl IntoIterator<Item = (&'s CredentialName, &'s SecretString)>) -> Self {
        let mut forms = Forms::new();
        let mut seen = std::collections::HashSet::new();
        for (name, secret) in secrets {
            if !seen.insert(secret.expose_secret()) {
                continue;
            }
            let mark: Arc<[u8]> = format!("[redacted:{name}]").into_bytes().into();
            for form in forms::of(secret) {
                forms.add(form, mark.clone());
            }
        }
        Self { forms: Arc::new(forms), held: Vec::new(), mask: Mask::default() }
    }

    /// No form is longer than this, in bytes.
    pub(crate) fn form_bytes_max(&self) -> usize {
        self.forms.bytes_max
    }

    /// Whether something was taken out.
    pub(crate) fn has_found(&self) -> bool {
        self.mask.found
    }

    /// How many bytes wait for what comes after them.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// What may go on now that these bytes have come.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.advance(false)
    }

    /// The rest.
    pub fn finish(&mut self) -> Vec<u8> {
        self.advance(true)
    }

    /// Something that is all there, such as a header field.
    pub fn whole(&self, bytes: &[u8]) -> Vec<u8> {
        let mut one = Self { forms: self.forms.clone(), held: bytes.to_vec(), mask: Mask::default() };
        one.advance(true)
    }

    /// Takes everything off that is decided; at the end, everything.
    fn advance(&mut self, is_end: bool) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.held);
        let (forms, mut places) = (self.forms.clone(), Places::default());
        let mut undecided = text.len();
        for at in 0..text.len() {
            let candidates = forms.candidates(text[at], text.get(at + 1).copied());
            if !candidates.is_empty() {
                match forms.longest_at(candidates, &text, at, is_end, &mut places) {
                    Decided::Not => {
                        undecided = at;
                        break;
                    }
                    Decided::Nothing => {}
                    Decided::Form { length, mark } => self.mask.cover(length, mark),
                }
            }
            // What was read is not looked at again: forms that begin later lie behind this byte.
            self.mask.write(&mut text[at]);
        }
        self.held = text.split_off(undecided);
        text
    }
}

/// What stands at a place of a text.
enum Decided<'f> {
    /// It depends on what comes.
    Not,
    Nothing,
    Form {
        length: usize,
        mark: &'f Arc<[u8]>,
    },
}

impl Forms {
    fn new() -> Self {
        Self {
            by_first_byte: vec![Vec::new(); 256],
            by_two_bytes: vec![0; 256 * 256],
            lists: vec![Vec::new()],
            ..Self::default()
        }
    }

    fn add(&mut self, form: Form, mark: Arc<[u8]>) {
        let number = self.all.len();
        self.bytes_max = self.bytes_max.max(form.bytes_max());
        for first in form.first_bytes() {
            self.by_first_byte[usize::from(first)].push(number);
            if !first.is_ascii_alphanumeric() {
                continue;
            }
            for second in form.second_bytes() {
                let list = &mut self.by_two_bytes[usize::from(u16::from_be_bytes([first, second]))];
                match u16::try_from(self.lists.len()) {
                    Ok(next) if *list == 0 => {
                        *list = next;
                        self.lists.push(Vec::new());
                    }
                    _ => {}
                }
                // The same byte may be named twice.
                let list = &mut self.lists[usize::from(*list)];
                if list.last() != Some(&number) {
                    list.push(number);
                }
            }
        }
        self.all.push((form, mark));
    }

    /// Those that may begin with these bytes.
    fn candidates(&self, first: u8, second: Option<u8>) -> &[usize] {
        match second {
            Some(second) if first.is_ascii_alphanumeric() => {
                let list = self.by_two_bytes[usize::from(u16::from_be_bytes([first, second]))];
                &self.lists[usize::from(list)]
            }
            _ => &self.by_first_byte[usize::from(first)],
        }
    }

    fn longest_at(
        &self,
        candidates: &[usize],
        text: &[u8],
        at: usize,
        is_end: bool,
        places: &mut Places,
    ) -> Decided<'_> {
        let mut longest = Decided::Nothing;
        for &candidate in candidates {
            let (form, mark) = &self.all[candidate];
            let found = form.read(text, at, places);
            if found.is_cut && !is_end {
                return Decided::Not;
            }
            let Some(end) = found.end else { continue };
            if !matches!(longest, Decided::Form { length, .. } if length >= end - at) {
                longest = Decided::Form { length: end - at, mark };
            }
        }
        longest
    }
}

impl Mask {
    /// Covers so many bytes from here on; what overlaps becomes one.
    fn cover(&mut self, length: usize, mark: &Arc<[u8]>) {
        if self.left == 0 {
            (self.mark, self.written) = (mark.clone(), 0);
        }
        self.left = self.left.max(length);
        self.found = true;
    }

    /// Writes over the next byte, if it is covered. Zeros and line ends stay: the text keeps its encoding and its lines.
    fn write(&mut self, byte: &mut u8) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        if !matches!(byte, 0 | b'\r' | b'\n') {
            *byte = self.mark.get(self.written).copied().unwrap_or(b'*');
            self.written += 1;
        }
    }
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrubber").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

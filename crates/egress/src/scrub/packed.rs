//! Answers whose content is itself packed, such as a `.tar.gz`: it goes on byte for byte, each piece once what it holds was looked
//! through. A secret in there cannot be taken out, so the answer ends before it. What cannot be unpacked is looked through as it is.

use std::collections::VecDeque;

use super::{Scrubber, WashFault, decode::Decoder};

/// As many bytes tell what a content is packed with.
const MAGIC_BYTES: usize = 4;
/// What is unpacked at a time, in bytes: little may become much.
const PIECE_BYTES: usize = 512;
/// Packed bytes that wait until it is clear what they hold.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// The content of an answer.
#[derive(Debug)]
pub(super) struct Packed {
    state: State,
    /// For what is inside.
    scrubber: Scrubber,
    /// Brotli has no first bytes of its own; only the type tells.
    is_brotli: bool,
}

#[derive(Debug)]
enum State {
    /// The first bytes, too few to tell.
    Beginning(Vec<u8>),
    Plain,
    Inside(Box<Inside>),
}

/// What is being unpacked.
#[derive(Debug)]
struct Inside {
    decoder: Decoder,
    /// Packed pieces, each with where what it holds ends.
    held: VecDeque<(Vec<u8>, u64)>,
    held_bytes: usize,
    /// Bytes that came out.
    unpacked: u64,
}

impl Packed {
    pub(super) fn new(content_type: &[u8], scrubber: &Scrubber) -> Self {
        let content_type = content_type.to_ascii_lowercase();
        let is_brotli = [&b"application/x-brotli"[..], b"application/brotli", b"application/x-br"]
            .iter()
            .any(|it| content_type.starts_with(it));
        Self { state: State::Beginning(Vec::new()), scrubber: scrubber.clone(), is_brotli }
    }

    /// What may go on. `plain` is for content that is not packed.
    pub(super) fn push(&mut self, bytes: &[u8], plain: &mut Scrubber) -> Result<Vec<u8>, WashFault> {
        match &mut self.state {
            State::Plain => Ok(plain.push(bytes)),
            State::Beginning(first) => {
                first.extend_from_slice(bytes);
                let first = std::mem::take(first);
                match coding_of(&first, self.is_brotli) {
                    Coding::TooShort => {
                        self.state = State::Beginning(first);
                        Ok(Vec::new())
                    }
                    Coding::None => {
                        self.state = State::Plain;
                        Ok(plain.push(&first))
                    }
                    Coding::Is(name) => {
                        self.state =
                            Decoder::of(&[name]).map_or(State::Plain, |it| State::Inside(Inside::new(it)));
                        self.push(&first, plain)
                    }
                }
            }
            State::Inside(inside) => {
                let mut clean = Vec::new();
                for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                    match inside.push(piece, &mut self.scrubber)? {
                        true => clean.extend(inside.release(self.scrubber.held_bytes())),
                        false => {
                            let rest = [inside.take_held(), bytes[number * PIECE_BYTES..].to_vec()].concat();
                            self.state = State::Plain;
                            clean.extend(plain.push(&rest));
                            return Ok(clean);
                        }
                    }
                }
                Ok(clean)
            }
        }
    }

    /// The rest.
    pub(super) fn finish(&mut self, plain: &mut Scrubber) -> Result<Vec<u8>, WashFault> {
        match &mut self.state {
            State::Plain => Ok(plain.finish()),
            State::Beginning(first) => {
                let mut clean = plain.push(&std::mem::take(first));
                clean.extend(plain.finish());
                Ok(clean)
            }
            State::Inside(inside) => {
                // One that ends early is the client's to notice.
                let last = inside.decoder.finish().unwrap_or_default();
                self.scrubber.push(&last);
                self.scrubber.finish();
                if self.scrubber.has_found() { Err(WashFault::HoldsSecret) } else { Ok(inside.take_held()) }
            }
        }
    }
}

impl Inside {
    fn new(decoder: Decoder) -> Box<Self> {
        Box::new(Self { decoder, held: VecDeque::new(), held_bytes: 0, unpacked: 0 })
    }

    /// Looks into a piece; whether it could be unpacked.
    fn push(&mut self, piece: &[u8], scrubber: &mut Scrubber) -> Result<bool, WashFault> {
        let Ok(unpacked) = self.decoder.push(piece) else { return Ok(false) };
        scrubber.push(&unpacked);
        self.unpacked += unpacked.len() as u64;
        self.held.push_back((piece.to_vec(), self.unpacked));
        self.held_bytes += piece.len();
        if scrubber.has_found() {
            return Err(WashFault::HoldsSecret);
        }
        if self.held_bytes > HELD_BYTES_MAX { Err(WashFault::Undecodable) } else { Ok(true) }
    }

    /// The pieces of which all that they hold was looked through.
    fn release(&mut self, undecided: usize) -> Vec<u8> {
        let (clear, mut released) = (self.unpacked - undecided as u64, Vec::new());
        while let Some((piece, _)) = self.held.pop_front_if(|(_, end)| *end <= clear) {
            self.held_bytes -= piece.len();
            released.extend(piece);
        }
        released
    }

    fn take_held(&mut self) -> Vec<u8> {
        self.held_bytes = 0;
        self.held.drain(..).flat_map(|(piece, _)| piece).collect()
    }
}

enum Coding {
    Is(&'static [u8]),
    None,
    TooShort,
}

/// What content that begins so is packed with.
fn coding_of(first: &[u8], is_brotli: bool) -> Coding {
    const GZIP: &[u8] = &[0x1f, 0x8b, 8];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    if is_brotli {
        return Coding::Is(b"br");
    }
    for (magic, name) in [(GZIP, &b"gzip"[..]), (ZSTD, b"zstd")] {
        if first.starts_with(magic) {
            return Coding::Is(name);
        }
        if first.len() < MAGIC_BYTES && magic.starts_with(first) {
            return Coding::TooShort;
        }
    }
    match first {
        // A zlib head: deflate with a window of 32 KiB, and a check of the two bytes.
        [0x78, flags, ..] if (0x7800 + u16::from(*flags)).is_multiple_of(31) => Coding::Is(b"deflate"),
        [0x78] => Coding::TooShort,
        _ => Coding::None,
    }
}

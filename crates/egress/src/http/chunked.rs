//! The chunked coding, taken apart strictly and put together anew: what goes on is our framing, never the sender's. Trailers are
//! read and dropped.

use palisade_protocol::limits::EGRESS_HEAD_BYTES_MAX;

use crate::Reason;

/// A size line without extension: `ffffffff` is 4 GiB, and no chunk is larger.
const SIZE_DIGITS_MAX: usize = 8;
const SIZE_LINE_BYTES_MAX: usize = 1024;

/// Whether a size may be followed by an extension. They have no use but to hide line ends in; origins send them at times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extensions {
    /// A request.
    Refused,
    /// An answer: read over and dropped.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers { bytes: usize },
    Done,
}

/// What stands at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More bytes are needed.
    More,
    /// This many bytes are framing, to be left out.
    Skip(usize),
    /// This many bytes are data.
    Data(usize),
    /// The body is over.
    Done,
}

/// Walks through one chunked body.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    extensions: Extensions,
}

impl Chunks {
    pub(crate) fn new(extensions: Extensions) -> Self {
        Self { state: State::Size, extensions }
    }

    /// Looks at what has come and takes the next step; the caller removes what the step covers.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, Reason> {
        match self.state {
            State::Size => {
                let Some((line, length)) = line(bytes, SIZE_LINE_BYTES_MAX)? else {
                    // Refused at its first wrong byte, so that nothing waits for the rest.
                    self.size(bytes.strip_suffix(b"\r").unwrap_or(bytes))
                        .map(|_| ())
                        .or_else(incomplete(bytes))?;
                    return Ok(Step::More);
                };
                self.state = match self.size(line)? {
                    0 => State::Trailers { bytes: 0 },
                    size => State::Data(size),
                };
                Ok(Step::Skip(length))
            }
            State::Data(_) if bytes.is_empty() => Ok(Step::More),
            State::Data(left) => {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.state = match left - taken as u64 {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                Ok(Step::Data(taken))
            }
            State::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(Step::Skip(2))
                }
                [] | [b'\r'] => Ok(Step::More),
                _ => Err(Reason::ChunkMalformed),
            },
            State::Trailers { bytes: before } => {
                let Some((line, length)) = line(bytes, EGRESS_HEAD_BYTES_MAX)? else { return Ok(Step::More) };
                let total = before + length;
                let plain = line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
                let field = line.first().is_none_or(|first| !first.is_ascii_whitespace()) && plain;
                if total > EGRESS_HEAD_BYTES_MAX || !field || (!line.is_empty() && !line.contains(&b':')) {
                    return Err(Reason::ChunkMalformed);
                }
                self.state = if line.is_empty() { State::Done } else { State::Trailers { bytes: total } };
                Ok(Step::Skip(length))
            }
            State::Done => Ok(Step::Done),
        }
    }

    fn size(&self, line: &[u8]) -> Result<u64, Reason> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let extension_is_fine = match self.extensions {
            Extensions::Refused => extension.is_empty(),
            Extensions::Dropped => {
                extension.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
                    && extension.first().is_none_or(|first| matches!(first, b';' | b' ' | b'\t'))
            }
        };
        if !(1..=SIZE_DIGITS_MAX).contains(&digits) || !extension_is_fine {
            return Err(Reason::ChunkMalformed);
        }
        let size = std::str::from_utf8(size).map_err(|_| Reason::ChunkMalformed)?;
        u64::from_str_radix(size, 16).map_err(|_| Reason::ChunkMalformed)
    }
}

/// A size line that has not begun is not yet wrong.
fn incomplete(bytes: &[u8]) -> impl Fn(Reason) -> Result<(), Reason> {
    let empty = bytes.is_empty();
    move |reason| if empty { Ok(()) } else { Err(reason) }
}

/// The first line and how many bytes it has with its end. A CR or LF by itself is no end.
fn line(bytes: &[u8], bytes_max: usize) -> Result<Option<(&[u8], usize)>, Reason> {
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(at) if bytes[at..].starts_with(b"\r\n") => Ok(Some((&bytes[..at], at + 2))),
        Some(at) if bytes[at..] == *b"\r" => Ok(None),
        Some(_) => Err(Reason::ChunkMalformed),
        None if bytes.len() > bytes_max => Err(Reason::ChunkMalformed),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8], piece: usize, extensions: Extensions) -> Result<Option<Vec<u8>>, Reason> {
        let mut chunks = Chunks::new(extensions);
        let (mut data, mut waiting) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            waiting.extend_from_slice(piece);
            loop {
                match chunks.step(&waiting)? {
                    Step::More => break,
                    Step::Skip(count) => drop(waiting.drain(..count)),
                    Step::Data(count) => data.extend(waiting.drain(..count)),
                    Step::Done => return Ok(Some(data)),
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn chunks_become_data_however_they_come() {
        let body = b"5\r\nhello\r\n1\r\n \r\n05\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\n";
        for piece in 1..body.len() {
            assert_eq!(
                decode(body, piece, Extensions::Refused),
                Ok(Some(b"hello world".to_vec())),
                "{piece}"
            );
        }
        let extended = b"5;a=b\r\nhello\r\n0 ;x\r\n\r\n";
        assert_eq!(decode(extended, 1, Extensions::Dropped), Ok(Some(b"hello".to_vec())));
        assert_eq!(decode(b"0\r\n", 1, Extensions::Refused), Ok(None));
    }

    /// EG-E4: sizes and line ends that parsers disagree about.
    #[test]
    fn what_is_not_exactly_a_chunk_is_refused() {
        for body in [
            &b"0x5\r\nhello\r\n"[..],
            b"5 ;\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-5\r\n",
            b"\r\n",
            b"5;a=b\r\nhello\r\n",
            b"5\nhello\n",
            b"5;\nx\r\nhello\r\n",
            b"5\rhello",
            b"10000000000000005\r\nhello",
            b"ffffffffffffffff\r\nx",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"0\r\nno colon\r\n",
            b"0\r\n a: b\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\nA: \0\r\n",
        ] {
            for piece in [1, body.len()] {
                let found = decode(body, piece, Extensions::Refused);
                assert_eq!(found, Err(Reason::ChunkMalformed), "{} by {piece}", body.escape_ascii());
            }
        }
        for body in [&b"5;a\nb\r\nhello"[..], b"5x\r\nhello", b"5;\x0b\r\nhello"] {
            assert_eq!(decode(body, 1, Extensions::Dropped), Err(Reason::ChunkMalformed));
        }
    }

    proptest! {
        /// However a body is cut, it is the same body or the same refusal; no step covers more than is there.
        #[test]
        fn cutting_changes_nothing(body in "([0-9a-f]{1,2}(;x)?\r?\n?[a-z]{0,6}\r\n){0,4}(0\r\n\r\n)?", piece in 1usize..7) {
            let whole = decode(body.as_bytes(), body.len().max(1), Extensions::Dropped);
            prop_assert_eq!(decode(body.as_bytes(), piece, Extensions::Dropped), whole);
        }
    }
}

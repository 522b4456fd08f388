//! The first look at a head: bytes only. Parsers of HTTP forgive what others read differently (a lone LF, a fold, a control byte), so whatever is forgivable is refused here before one sees it.

use crate::Reason;

/// How far a head was looked at, so that a head that comes byte by byte is looked at once.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    seen: usize,
}

impl HeadScan {
    /// Where the head ends, behind its blank line; `None` while it has not.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Reason> {
        while let Some(&byte) = bytes.get(self.seen) {
            let before = |back: usize| self.seen.checked_sub(back).and_then(|at| bytes.get(at)).copied();
            match byte {
                b'\r' if self.seen == 0 => return Err(Reason::HeadMalformed),
                b'\n' if before(1) != Some(b'\r') => return Err(Reason::HeadMalformed),
                b'\n' if before(2) == Some(b'\n') => {
                    self.seen += 1;
                    return Ok(Some(self.seen));
                }
                _ if byte != b'\n' && before(1) == Some(b'\r') => return Err(Reason::HeadMalformed),
                // A line that begins with a blank goes on from the line before, or hides a field.
                b' ' | b'\t' if before(1) == Some(b'\n') => return Err(Reason::HeadMalformed),
                // Above ASCII: of a request it is looked at again, as text.
                b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..=0xff => {}
                _ => return Err(Reason::HeadMalformed),
            }
            self.seen += 1;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<Option<usize>, Reason> {
        HeadScan::default().advance(bytes)
    }

    #[test]
    fn a_head_ends_at_its_blank_line_however_it_comes() {
        let head = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\nrest";
        assert_eq!(whole(head), Ok(Some(head.len() - 4)));
        let mut scan = HeadScan::default();
        for end in 0..head.len() - 5 {
            assert_eq!(scan.advance(&head[..end]), Ok(None), "{end}");
        }
        assert_eq!(scan.advance(head), Ok(Some(head.len() - 4)));
    }

    /// EG-E6: bare CR and LF, folds, control bytes, leading blank lines; refused as soon as they are seen.
    #[test]
    fn what_parsers_forgive_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\nHost"[..],
            b"GET / HTTP/1.1\rHost",
            b"GET / HTTP/1.1\r\r\n",
            b"\r\nGET",
            b"\nGET",
            b"A: b\r\n c",
            b"A: b\r\n\tc",
            b"A: b\0",
            b"A: b\x0b",
            b"A: \x7f",
            b"A: b\r\nC: d\n\r\n",
        ] {
            assert_eq!(whole(bytes), Err(Reason::HeadMalformed), "{}", bytes.escape_ascii());
        }
        assert_eq!(HeadScan::default().advance(b"A: \xc3\xa4\r\n\r\n"), Ok(Some(9)));
    }
}

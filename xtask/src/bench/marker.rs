//! Numbers that ride in the text of deltas, `@000123@`, found again in whatever wire format carries them. It reads
//! bytes, so that finding them costs next to nothing beside what is measured.

const DIGITS: usize = 6;
const LENGTH: usize = DIGITS + 2;

/// The marker of a number below a million.
pub(super) fn marker(number: usize) -> String {
    format!("@{number:0DIGITS$}@")
}

/// Finds markers in a stream of pieces, however they are cut.
#[derive(Default)]
pub(super) struct Scanner {
    /// The end of what was seen, too short for a marker.
    tail: Vec<u8>,
}

impl Scanner {
    /// The numbers that are complete with this piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Vec<usize> {
        self.tail.extend_from_slice(piece);
        let mut numbers = Vec::new();
        let mut at = 0;
        while at + LENGTH <= self.tail.len() {
            match number(&self.tail[at..at + LENGTH]) {
                Some(number) => {
                    numbers.push(number);
                    at += LENGTH;
                }
                None => at += 1,
            }
        }
        self.tail.drain(..at);
        numbers
    }
}

fn number(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.strip_prefix(b"@")?.strip_suffix(b"@")?;
    digits
        .iter()
        .try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_wherever_the_stream_is_cut() {
        let text = format!("id: 1\ndata: {} a@b {}{} @12@ @00012x@", marker(0), marker(999_999), marker(12));
        for at in 0..=text.len() {
            let mut scanner = Scanner::default();
            let mut found = scanner.take(&text.as_bytes()[..at]);
            found.extend(scanner.take(&text.as_bytes()[at..]));
            assert_eq!(found, [0, 999_999, 12], "cut at {at}");
        }
    }
}

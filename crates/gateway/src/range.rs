//! `Range: bytes=…` (RFC 9110 §14), for one part of a file. Several parts at once are answered with the whole, as the
//! standard allows.

/// What a reader asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Whole,
    /// Both ends belong to it.
    Part {
        first: u64,
        last: u64,
    },
    /// Nothing of what was asked for is in the file, or it makes no sense.
    Unsatisfiable,
}

/// Reads the header's value for a file of `size` bytes. Another unit than bytes is not ours to understand.
pub(crate) fn wanted(header: &str, size: u64) -> Wanted {
    let Some((unit, set)) = header.split_once('=') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let mut parts = set.split(',').map(str::trim).filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some(only), None) => one(only, size),
        (Some(first), Some(second)) => {
            let is_there = |part| one(part, size) != Wanted::Unsatisfiable;
            let any = is_there(first) || is_there(second) || parts.any(is_there);
            if any { Wanted::Whole } else { Wanted::Unsatisfiable }
        }
        (None, _) => Wanted::Unsatisfiable,
    }
}

fn one(part: &str, size: u64) -> Wanted {
    let (first, last) = match part.split_once('-') {
        // The last so many bytes; of an empty file there is no part to send, and the whole is what was asked for.
        Some(("", length)) => match number(length) {
            None | Some(0) => return Wanted::Unsatisfiable,
            Some(_) if size == 0 => return Wanted::Whole,
            Some(length) => (size.saturating_sub(length), u64::MAX),
        },
        Some((first, "")) => (number(first).unwrap_or(u64::MAX), u64::MAX),
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) => (first, last),
            _ => return Wanted::Unsatisfiable,
        },
        None => return Wanted::Unsatisfiable,
    };
    if first >= size || last < first {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part { first, last: last.min(size - 1) }
}

/// A number of any length; what is larger than any file is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Wanted::{Part, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn the_edges_of_ranges() {
        let part = |first, last| Part { first, last };
        for (header, size, expected) in [
            ("bytes=0-", 10, part(0, 9)),
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=9-", 10, part(9, 9)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=0-99999999999999999999999", 10, part(0, 9)),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=18446744073709551615-18446744073709551615", u64::MAX, Unsatisfiable),
            ("bytes=0-18446744073709551615", u64::MAX, part(0, u64::MAX - 1)),
            ("bytes=-5000", 1024, part(0, 1023)),
            ("bytes=-99999999999999999999999", 1024, part(0, 1023)),
            ("bytes=-1", 1024, part(1023, 1023)),
            ("bytes=-0", 1024, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            ("bytes=5-2", 10, Unsatisfiable),
            ("Bytes = 2 - 4 ", 10, part(2, 4)),
            ("bytes=,2-4,", 10, part(2, 4)),
            ("bytes=0-1,4-5", 10, Whole),
            ("bytes=0-1,99-", 10, Whole),
            ("bytes=98-,99-", 10, Unsatisfiable),
            ("bytes=", 10, Unsatisfiable),
            ("bytes=-", 10, Unsatisfiable),
            ("bytes=a-b", 10, Unsatisfiable),
            ("bytes=+1-2", 10, Unsatisfiable),
            ("bytes=--5", 10, Unsatisfiable),
            ("bytes=1-2-3", 10, Unsatisfiable),
            ("lines=1-2", 10, Whole),
            ("bytes", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(wanted(header, size), expected, "{header} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file_whatever_was_asked_for(
            header in "(bytes=)?[0-9,=\\- ]{0,40}|bytes=(-?[0-9]{1,24}){1,2}|\\PC{0,20}",
            size in prop_oneof![0u64..20, any::<u64>()],
        ) {
            if let Part { first, last } = wanted(&header, size) {
                prop_assert!(first <= last && last < size, "{header} of {size}: {first}-{last}");
            }
        }

        #[test]
        fn numbers_mean_what_they_say(first in 0u64..30, last in 0u64..30, size in 0u64..30) {
            let bytes: Vec<u64> = (first..=last).filter(|at| *at < size).collect();
            let expected = match (bytes.first(), bytes.last()) {
                (Some(first), Some(last)) => Part { first: *first, last: *last },
                _ => Unsatisfiable,
            };
            prop_assert_eq!(wanted(&format!("bytes={first}-{last}"), size), expected);
        }
    }
}

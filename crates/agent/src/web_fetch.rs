//! WebFetch is a command in the sandbox like any other: what fetches and reads a page is where the page can do no harm, and it
//! leaves by the session's own way out, under the session's own policy.

use palisade_protocol::limits::TOOL_OUTPUT_BYTES_MAX;

use crate::tools::{Bash, quoted};

const PROGRAM: &str = include_str!("web_fetch.py");
/// Bytes read of one page.
const PAGE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// For the page to come and to be read, in milliseconds.
const TIMEOUT_MS: u64 = 120_000;
/// The longest URL that is fetched, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// The command that fetches `url`, or what is wrong with it.
pub(crate) fn command(url: &str) -> Result<Bash, String> {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err("the URL must begin with https:// or http://".into());
    }
    if url.len() > URL_BYTES_MAX || url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(format!("the URL has blanks in it, or more than {URL_BYTES_MAX} bytes"));
    }
    // Some room for the first line and how the command ended.
    let shown = TOOL_OUTPUT_BYTES_MAX * 3 / 4;
    let command =
        format!("exec /usr/bin/python3 -c {} {} {PAGE_BYTES_MAX} {shown}", quoted(PROGRAM), quoted(url));
    Ok(Bash { command, timeout_ms: TIMEOUT_MS, background: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_word() {
        let bash = command("https://example.com/?q='$(id)'").unwrap();
        assert!(bash.command.contains(r"'https://example.com/?q='\''$(id)'\'''"), "{}", bash.command);
        for wrong in [
            "",
            "example.com",
            "file:///etc/passwd",
            "https://a b",
            "https://a\nb",
            &format!("https://{}", "a".repeat(5000)),
        ] {
            assert!(command(wrong).is_err(), "{wrong}");
        }
    }
}

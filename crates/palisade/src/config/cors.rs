//! `[cors]`: the web pages that may call the API from a browser.

use anyhow::{Result, bail};
use serde::Deserialize;

/// Origins that one server may name.
const ORIGINS_MAX: usize = 100;

/// None by default: a browser then lets no page of another origin speak to the server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CorsSection {
    /// Exact origins, such as `https://app.example.com` or `http://localhost:5173`.
    pub(crate) origins: Vec<String>,
}

impl CorsSection {
    pub(super) fn check(&self) -> Result<()> {
        if self.origins.len() > ORIGINS_MAX {
            bail!("[cors] origins: at most {ORIGINS_MAX} can be named");
        }
        for origin in &self.origins {
            if origin == "*" {
                bail!(
                    "[cors] origins = [\"*\"]: name each origin, because a page that holds a key can do what the key may"
                );
            }
            if !is_origin(origin) {
                bail!(
                    "[cors] origins: {origin:?} is no origin; write scheme, host and, where it is not the usual one, \
                     the port, in small letters and without a path, such as \"https://app.example.com\""
                );
            }
        }
        Ok(())
    }
}

/// As a browser writes it into its header.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]_".contains(&b))
            && !host.ends_with(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_as_browsers_write_them() {
        for (origin, is_good) in [
            ("https://app.example.com", true),
            ("http://localhost:5173", true),
            ("http://[::1]:8080", true),
            ("*", false),
            ("null", false),
            ("https://app.example.com/", false),
            ("https://App.example.com", false),
            ("https://*.example.com", false),
            ("app.example.com", false),
            ("https://", false),
            ("https://user@example.com", false),
        ] {
            let section = CorsSection { origins: vec![origin.to_owned()] };
            assert_eq!(section.check().is_ok(), is_good, "{origin}");
        }
    }
}

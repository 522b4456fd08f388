//! A door for whoever brings a token in `Proxy-Authorization`: the hop from a server to a proxy that is its own process. Tokens are kept and
//! compared as hashes, so that neither memory nor time tells one.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::net::TcpListener;

use super::{Door, DoorState, Shared, Who};
use crate::{Reason, http::head::Asked};

/// Wrong tokens from one peer in a minute; after them right ones are refused, too.
const ATTEMPTS_MAX: u32 = 20;
const ATTEMPTS_PERIOD: Duration = Duration::from_secs(60);
/// Peers whose attempts are counted; beyond it the oldest are forgotten.
const PEERS_MAX: usize = 1_024;
/// A token for `Basic` is at most this long, in bytes of base64.
const BASIC_BYTES_MAX: usize = 1_024;

/// A way in that tells principals apart by their tokens.
#[derive(Clone)]
pub struct TokenDoor {
    shared: Arc<Shared>,
    tokens: Arc<Tokens>,
}

#[derive(Default)]
pub(super) struct Tokens {
    doors: RwLock<HashMap<[u8; 32], Arc<DoorState>>>,
    attempts: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl TokenDoor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tokens: Arc::default() }
    }

    /// From now on this token is this door's principal. Revoked by [`Self::remove`].
    pub fn insert(&self, token: &str, door: &Door) {
        if let Ok(mut doors) = self.tokens.doors.write() {
            doors.insert(hash(token.as_bytes()), door.state.clone());
        }
    }

    /// Takes a token back. What it opened goes on until its door is closed.
    pub fn remove(&self, token: &str) {
        if let Ok(mut doors) = self.tokens.doors.write() {
            doors.remove(&hash(token.as_bytes()));
        }
    }

    /// Serves whoever connects here until the proxy stops.
    pub fn listen(&self, listener: TcpListener) {
        let tokens = self.tokens.clone();
        let closed = self.shared.stopping.clone();
        self.shared.listen(listener, closed, move |peer| Who::Tokens(tokens.clone(), peer));
    }
}

impl Tokens {
    /// Whose token it is: one `Proxy-Authorization`, `Bearer TOKEN` or `Basic`, with the token as the password.
    pub(super) fn identify(&self, asked: &Asked, peer: SocketAddr) -> Result<Arc<DoorState>, Reason> {
        let mut attempts = self.attempts.lock().map_err(|_| Reason::TokenRefused)?;
        if attempts.len() >= PEERS_MAX {
            attempts.retain(|_, (since, _)| since.elapsed() < ATTEMPTS_PERIOD);
            if attempts.len() >= PEERS_MAX {
                attempts.clear();
            }
        }
        let (since, count) = attempts.get(&peer.ip()).copied().unwrap_or((Instant::now(), 0));
        let (since, count) =
            if since.elapsed() < ATTEMPTS_PERIOD { (since, count) } else { (Instant::now(), 0) };
        if count >= ATTEMPTS_MAX {
            return Err(Reason::TokenAttempts);
        }
        let [value] = asked.proxy_authorization.as_slice() else { return Err(Reason::TokenRefused) };
        let door = token_of(value).and_then(|token| {
            let doors = self.doors.read().ok()?;
            doors.get(&hash(&token)).filter(|door| !door.closed.is_cancelled()).cloned()
        });
        if door.is_none() {
            attempts.insert(peer.ip(), (since, count + 1));
        }
        door.ok_or(Reason::TokenRefused)
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    digest(&SHA256, token).as_ref().try_into().unwrap_or_default()
}

fn token_of(value: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.as_bytes().to_vec()),
        "basic" => {
            let pair = from_base64(rest)?;
            let colon = pair.iter().position(|&byte| byte == b':')?;
            Some(pair[colon + 1..].to_vec())
        }
        _ => None,
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    if text.len() > BASIC_BYTES_MAX || !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, held) = (bits << 6 | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_in_two_forms() {
        assert_eq!(token_of("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(token_of("basic dXNlcjpwYTpzcw=="), Some(b"pa:ss".to_vec()));
        assert_eq!(token_of("Basic Ong="), Some(b"x".to_vec()));
        for value in ["abc", "Basic !!!!", "Basic dXNlcg==", "Basic dXN", "Digest abc", ""] {
            assert_eq!(token_of(value), None, "{value}");
        }
    }
}

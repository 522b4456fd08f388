//! Attaching a credential to a request: every place that a credential could stand in is emptied of the client's, then ours goes into its
//! own. A client that brings one of its own to a managed host is refused, and so is a placeholder anywhere but in its place. Pure:
//! where the secret comes from and where the request goes are others' affairs.

mod placeholder;
mod slots;

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use palisade_protocol::{CredentialRule, Injection};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use crate::{Reason, http::head::Forward};
pub(crate) use placeholder::{PlaceholderScan, mentions_placeholder};
use slots::{is_auth_field, is_auth_parameter, is_dropped_field, is_signature};

/// Takes the client's credentials out of a request to a managed host, and says which of ours goes in: the one whose placeholder stood
/// in its place, or else the first.
pub(crate) fn empty_slots(
    request: &mut Forward,
    credentials: &[Arc<CredentialRule>],
) -> Result<Arc<CredentialRule>, Reason> {
    // A WebSocket's frames are not looked into, so what comes back could not be cleared of the secret.
    if request.websocket {
        return Err(Reason::UpgradeRefused);
    }
    let mut named = None;
    let mut take = |credential: Option<&Arc<CredentialRule>>| match credential {
        Some(credential) => {
            named.get_or_insert_with(|| credential.clone());
            Ok(())
        }
        None => Err(Reason::ForeignCredential),
    };
    let (kept, slots): (Vec<_>, Vec<_>) =
        std::mem::take(&mut request.fields).into_iter().partition(|(name, _)| !is_slot(name, credentials));
    request.fields = kept;
    for (name, value) in slots.iter().filter(|(name, value)| !is_dropped_field(name) && !value.is_empty()) {
        if is_signature(value) {
            return Err(Reason::SignedRequest);
        }
        take(credentials.iter().find(|credential| fills_field(credential, name, value)))?;
    }
    let (path, parameters) = split_query(&request.path, credentials);
    for (name, value) in &parameters {
        if slots::is_signed_parameter(name) {
            return Err(Reason::SignedRequest);
        }
        take(credentials.iter().find(|credential| fills_parameter(credential, name, value)))?;
    }
    request.path = path;
    named.or_else(|| credentials.first().cloned()).ok_or(Reason::CredentialMissing)
}

/// Puts the secret in its place. Nothing of what the client sent is read again afterwards.
pub(crate) fn attach(
    request: &mut Forward,
    credential: &CredentialRule,
    secret: &SecretString,
) -> Result<(), Reason> {
    let secret = secret.expose_secret();
    // In the other two places it is encoded, and may be any text.
    let stands_as_it_is = matches!(credential.injection, Injection::Bearer | Injection::Header { .. });
    let fits = |byte: u8| !byte.is_ascii_control() && (byte.is_ascii() || !stands_as_it_is);
    if secret.is_empty() || !secret.bytes().all(fits) {
        return Err(Reason::CredentialUnusable);
    }
    match &credential.injection {
        Injection::Bearer => push(request, "Authorization", format!("Bearer {secret}")),
        Injection::Basic { username } => {
            let pair = BASE64_STANDARD.encode(format!("{username}:{secret}"));
            push(request, "Authorization", format!("Basic {pair}"));
        }
        Injection::Header { name } => push(request, name, secret.to_owned()),
        Injection::Query { name } => {
            let joint = if request.path.contains('?') { '&' } else { '?' };
            let value = utf8_percent_encode(secret, NON_ALPHANUMERIC);
            request.path = format!("{}{joint}{name}={value}", request.path);
        }
    }
    // What comes back is looked through.
    request.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("accept-encoding"));
    push(request, "Accept-Encoding", "identity".to_owned());
    Ok(())
}

fn push(request: &mut Forward, name: &str, value: String) {
    request.fields.push((name.to_owned(), value.into_bytes()));
}

fn is_slot(name: &str, credentials: &[Arc<CredentialRule>]) -> bool {
    let own = |credential: &Arc<CredentialRule>| matches!(&credential.injection, Injection::Header { name: own } if slots::same(own, name));
    is_auth_field(name) || credentials.iter().any(own)
}

/// Whether this field holds exactly this credential's placeholder, in the form that it will have.
fn fills_field(credential: &CredentialRule, name: &str, value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let placeholder = credential.placeholder.as_str();
    let scheme = |scheme: &str| {
        let (found, rest) = value.split_once(' ')?;
        found.eq_ignore_ascii_case(scheme).then_some(rest.trim_start())
    };
    match &credential.injection {
        Injection::Header { name: own } => slots::same(own, name) && value == placeholder,
        _ if !name.eq_ignore_ascii_case("authorization") => false,
        // Some programs say `token` where others say `Bearer`.
        Injection::Bearer => [scheme("Bearer"), scheme("token")].contains(&Some(placeholder)),
        Injection::Basic { .. } => {
            let decoded = scheme("Basic").and_then(|pair| BASE64_STANDARD.decode(pair).ok());
            decoded.is_some_and(|pair| {
                pair.splitn(2, |&byte| byte == b':').nth(1) == Some(placeholder.as_bytes())
            })
        }
        Injection::Query { .. } => false,
    }
}

fn fills_parameter(credential: &CredentialRule, name: &str, value: &str) -> bool {
    matches!(&credential.injection, Injection::Query { name: own } if own == name)
        && value == credential.placeholder
}

/// The path without the parameters that credentials stand in, and those, decoded. The others stay byte for byte.
fn split_query(path: &str, credentials: &[Arc<CredentialRule>]) -> (String, Vec<(String, String)>) {
    let Some((before, query)) = path.split_once('?') else { return (path.to_owned(), Vec::new()) };
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let own = |name: &str| {
        credentials.iter().any(|it| matches!(&it.injection, Injection::Query { name: own } if own == name))
    };
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    // Some servers part parameters at semicolons, too.
    for parameter in query.split_inclusive(['&', ';']) {
        let bare = parameter.trim_end_matches(['&', ';']);
        let (name, value) = bare.split_once('=').unwrap_or((bare, ""));
        let name = decoded(name);
        match is_auth_parameter(&name) || own(&name) {
            true => taken.push((name, decoded(value))),
            false => kept.push(parameter),
        }
    }
    let query = kept.concat();
    let query = query.trim_end_matches(['&', ';']);
    let path = if query.is_empty() { before.to_owned() } else { format!("{before}?{query}") };
    (path, taken)
}

#[cfg(test)]
mod tests;

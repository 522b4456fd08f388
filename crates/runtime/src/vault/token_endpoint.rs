//! What is said to an OAuth token endpoint and what is understood of its answer (RFC 6749 §4.4, §5, §6). The answer ends here: of what
//! it says only the tokens go on, sealed, and of a refusal only the standard's own words reach the log.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use palisade_protocol::limits::VAULT_SECRET_BYTES_MAX;
use palisade_vault::{ExposeSecret as _, Field, SecretString};
use serde::Deserialize;

use super::service::FormPost;
use super::settings::{ClientAuth, OAuthGrant, OAuthSettings};

/// Of a token whose endpoint does not say, in seconds.
const LIFETIME_DEFAULT_S: f64 = 3600.0;
/// An endpoint that says less would be asked all the time; one that says more is not believed.
const LIFETIME_MIN_S: f64 = 30.0;
const LIFETIME_MAX_S: f64 = 30.0 * 86_400.0;

/// The words of RFC 6749 §5.2; anything else is the endpoint's own, and may repeat what it was sent.
const REFUSALS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// What an endpoint gave.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) access: SecretString,
    /// In place of the one that was used.
    pub(super) refresh: Option<SecretString>,
    /// From now on, in seconds.
    pub(super) lifetime_s: f64,
}

/// What an endpoint did instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For the log.
    pub(super) why: String,
    /// Whether it may be different the next time.
    pub(super) is_passing: bool,
}

/// The request for a new access token; `None` where a secret that it needs is missing.
pub(super) fn request(oauth: &OAuthSettings, secrets: &BTreeMap<Field, SecretString>) -> Option<FormPost> {
    let client_secret = secrets.get(&Field::ClientSecret)?;
    let mut headers = vec![("accept", SecretString::from("application/json"))];
    let mut form = vec![("grant_type", SecretString::from(oauth.grant.name()))];
    if oauth.grant == OAuthGrant::RefreshToken {
        form.push(("refresh_token", secrets.get(&Field::RefreshToken)?.clone()));
    }
    form.extend(oauth.scope.clone().map(|scope| ("scope", scope.into())));
    match oauth.client_auth {
        ClientAuth::Basic => {
            let [user, password] =
                [oauth.client_id.as_str(), client_secret.expose_secret()].map(FormPost::encoded);
            let both = zeroize::Zeroizing::new(format!("{user}:{password}"));
            headers.push(("authorization", format!("Basic {}", STANDARD.encode(both.as_bytes())).into()));
        }
        ClientAuth::Post => {
            form.push(("client_id", oauth.client_id.clone().into()));
            form.push(("client_secret", client_secret.clone()));
        }
    }
    Some(FormPost { url: oauth.token_url.clone(), headers, form })
}

#[derive(Deserialize)]
struct Given {
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    expires_in: Option<Lifetime>,
}

/// A number, which some endpoints write as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lifetime {
    Seconds(f64),
    Text(String),
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

pub(super) fn read_answer(status: u16, body: &[u8]) -> Result<Tokens, Refusal> {
    let refusal = |why: String, is_passing| Err(Refusal { why, is_passing });
    if status != 200 {
        let said = serde_json::from_slice::<Refused>(body).map_or(String::new(), |refused| refused.error);
        let word = REFUSALS.iter().find(|word| **word == said).unwrap_or(&"no standard error");
        return refusal(format!("status {status}, {word}"), status >= 500 || status == 429);
    }
    // What is wrong with it is not told: the reader's message would quote it.
    let Ok(given) = serde_json::from_slice::<Given>(body) else {
        return refusal("an answer without an access token".to_owned(), false);
    };
    if [Some(&given.access_token), given.refresh_token.as_ref()]
        .into_iter()
        .flatten()
        .any(|token| !is_token(token))
    {
        return refusal("a token that no header field takes".to_owned(), false);
    }
    let lifetime_s = match given.expires_in {
        None => LIFETIME_DEFAULT_S,
        Some(Lifetime::Seconds(seconds)) => seconds,
        Some(Lifetime::Text(text)) => text.parse().unwrap_or(LIFETIME_DEFAULT_S),
    };
    let lifetime_s = if lifetime_s.is_nan() { LIFETIME_DEFAULT_S } else { lifetime_s };
    Ok(Tokens {
        access: given.access_token,
        refresh: given.refresh_token,
        lifetime_s: lifetime_s.clamp(LIFETIME_MIN_S, LIFETIME_MAX_S),
    })
}

fn is_token(token: &SecretString) -> bool {
    let text = token.expose_secret();
    (1..=VAULT_SECRET_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `host:port`, and whether it is spoken to over TLS.
pub(super) fn endpoint(url: &str) -> Option<(String, bool)> {
    let uri: Uri = url.parse().ok()?;
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    Some((format!("{}:{port}", uri.host()?), is_tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oauth(client_auth: ClientAuth) -> OAuthSettings {
        OAuthSettings {
            grant: OAuthGrant::RefreshToken,
            token_url: "https://login.example.com/token".into(),
            client_id: "my id".into(),
            scope: Some("a b".into()),
            client_auth,
        }
    }

    #[test]
    fn a_client_says_who_it_is_in_the_standards_way() {
        let secrets = BTreeMap::from([
            (Field::ClientSecret, SecretString::from("s&cret:ä")),
            (Field::RefreshToken, SecretString::from("r+1")),
        ]);
        let basic = request(&oauth(ClientAuth::Basic), &secrets).unwrap();
        assert_eq!(basic.body().expose_secret(), "grant_type=refresh_token&refresh_token=r%2B1&scope=a%20b");
        let header = basic.headers.iter().find(|(name, _)| *name == "authorization").unwrap();
        let decoded = STANDARD.decode(header.1.expose_secret().strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(decoded, b"my%20id:s%26cret%3A%C3%A4");
        let post = request(&oauth(ClientAuth::Post), &secrets).unwrap();
        assert!(post.body().expose_secret().ends_with("&client_id=my%20id&client_secret=s%26cret%3A%C3%A4"));
        assert!(post.headers.iter().all(|(name, _)| *name != "authorization"));
        let shown = format!("{basic:?} {post:?}");
        assert!(!shown.contains("s&cret") && !shown.contains("r+1"), "{shown}");
        assert!(request(&oauth(ClientAuth::Basic), &BTreeMap::new()).is_none());
    }

    #[test]
    fn an_answer_is_read_strictly_and_a_refusal_repeats_nothing() {
        let read = |body: &str| read_answer(200, body.as_bytes());
        let lifetime = |body: &str| read(body).unwrap().lifetime_s;
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":600}"#), 600.0);
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":"600"}"#), 600.0);
        assert_eq!(lifetime(r#"{"access_token":"t"}"#), 3600.0);
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":-5}"#), 30.0);
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":1e300}"#), 30.0 * 86_400.0);
        for wrong in [
            "",
            "{}",
            "sekret",
            r#"{"access_token":""}"#,
            r#"{"access_token":"sekret\r\nx: y"}"#,
            r#"{"access_token":815}"#,
            r#"{"access_token":"t","refresh_token":"sekret sekret"}"#,
        ] {
            let refusal = read(wrong).unwrap_err();
            assert!(!refusal.is_passing && !refusal.why.contains("sekret") && !refusal.why.contains("815"));
        }
        let refusal =
            read_answer(400, br#"{"error":"invalid_grant","error_description":"sekret"}"#).unwrap_err();
        assert_eq!(refusal, Refusal { why: "status 400, invalid_grant".into(), is_passing: false });
        let refusal = read_answer(503, br#"{"error":"sekret"}"#).unwrap_err();
        assert_eq!(refusal, Refusal { why: "status 503, no standard error".into(), is_passing: true });
        assert!(!read_answer(302, b"").unwrap_err().is_passing, "nothing is followed");
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        assert_eq!(endpoint("https://login.example.com/t"), Some(("login.example.com:443".into(), true)));
        assert_eq!(endpoint("http://127.0.0.1:81/t"), Some(("127.0.0.1:81".into(), false)));
    }
}

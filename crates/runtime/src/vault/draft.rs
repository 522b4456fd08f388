//! A credential as somebody wants it stored, and what is not taken: a value that could end a header (EG-F5), a host that anybody
//! could have (EG-H11), a variable that would change how programs run. No refusal repeats a secret.

use http::{HeaderName, Uri, header};
use palisade_protocol::{Error, ErrorKind, Injection, limits};
use palisade_vault::{ExposeSecret as _, SecretString};

use super::settings::{ClientAuth, OAuthGrant};

/// A credential to be stored.
#[derive(Debug)]
pub struct CredentialDraft {
    /// What it is.
    pub secret: SecretDraft,
    /// Where it may go: `name`, `name:port` or `*.suffix`.
    pub allowed_hosts: Vec<String>,
    /// How it is attached.
    pub injection: Injection,
    /// The variable that shows commands its placeholder.
    pub env: Option<String>,
}

/// The secret part.
#[derive(Debug)]
pub enum SecretDraft {
    /// It is attached as it is.
    Value(SecretString),
    /// An access token is asked for, and attached.
    OAuth(OAuthDraft),
}

/// How access tokens are asked for.
#[derive(Debug)]
pub struct OAuthDraft {
    /// By which grant.
    pub grant: OAuthGrant,
    /// Where: https.
    pub token_url: String,
    /// Who the client is.
    pub client_id: String,
    /// How it shows that.
    pub client_secret: SecretString,
    /// For that grant.
    pub refresh_token: Option<SecretString>,
    /// What is asked for, where the endpoint wants to be told.
    pub scope: Option<String>,
    /// How the client's secret is shown.
    pub client_auth: ClientAuth,
}

/// Fields that belong to the connection, to the message or to the proxy itself.
const HEADERS_REFUSED: [HeaderName; 12] = [
    header::HOST,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::DATE,
    header::ACCEPT_ENCODING,
    header::RANGE,
    header::FORWARDED,
    header::VIA,
];
const HEADER_PREFIXES_REFUSED: [&str; 5] = ["content-", "proxy-", "palisade-", "keep-alive", "x-forwarded-"];
const PARAMETER_BYTES_MAX: usize = 64;
const USERNAME_BYTES_MAX: usize = 256;

impl CredentialDraft {
    /// Refuses what could not work or would do harm. With `loopback` a token endpoint may be http on this machine.
    pub(super) fn check(&self, loopback: bool) -> Result<(), Error> {
        self.check_hosts()?;
        self.check_injection()?;
        if let Some(env) = &self.env {
            check_env(env)?;
        }
        match &self.secret {
            SecretDraft::Value(value) => {
                let is_plain = matches!(self.injection, Injection::Bearer | Injection::Header { .. });
                check_secret("value", value, is_plain)
            }
            SecretDraft::OAuth(oauth) => oauth.check(loopback),
        }
    }

    fn check_hosts(&self) -> Result<(), Error> {
        if !(1..=limits::VAULT_HOSTS_MAX).contains(&self.allowed_hosts.len()) {
            let message = format!("allowed_hosts has from 1 to {} hosts", limits::VAULT_HOSTS_MAX);
            return Err(malformed("vault.bad_hosts", message));
        }
        for host in &self.allowed_hosts {
            palisade_egress::check_host_pattern(host)
                .map_err(|error| malformed("vault.bad_hosts", error.to_string()))?;
        }
        Ok(())
    }

    fn check_injection(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(malformed("vault.bad_injection", message));
        match &self.injection {
            Injection::Bearer => Ok(()),
            Injection::Basic { username } => {
                match is_text(username, USERNAME_BYTES_MAX) && !username.contains(':') {
                    true => Ok(()),
                    false => wrong(format!(
                        "a username has from 1 to {USERNAME_BYTES_MAX} bytes, no colon and no control character"
                    )),
                }
            }
            Injection::Header { name } => {
                let lower = name.to_ascii_lowercase();
                let is_taken = HEADER_PREFIXES_REFUSED.iter().any(|prefix| lower.starts_with(prefix));
                match HeaderName::from_bytes(name.as_bytes()) {
                    Err(_) => wrong("injection.name is not a name of a header field".to_owned()),
                    Ok(name) if is_taken || HEADERS_REFUSED.contains(&name) => wrong(format!(
                        "the header field {name} belongs to the connection and carries no credential"
                    )),
                    Ok(_) => Ok(()),
                }
            }
            Injection::Query { name } => {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]$".contains(&byte);
                match (1..=PARAMETER_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
                    true => Ok(()),
                    false => wrong(format!(
                        "a query parameter has from 1 to {PARAMETER_BYTES_MAX} letters, digits and -._~[]$"
                    )),
                }
            }
        }
    }
}

impl OAuthDraft {
    fn check(&self, loopback: bool) -> Result<(), Error> {
        let wrong = |message: String| Err(malformed("vault.bad_oauth", message));
        check_token_url(&self.token_url, loopback)?;
        for (what, text) in [("client_id", Some(&self.client_id)), ("scope", self.scope.as_ref())] {
            if text.is_some_and(|text| !is_text(text, limits::VAULT_TEXT_BYTES_MAX)) {
                let bytes_max = limits::VAULT_TEXT_BYTES_MAX;
                return wrong(format!("{what} has from 1 to {bytes_max} bytes and no control character"));
            }
        }
        check_secret("client_secret", &self.client_secret, false)?;
        match (self.grant, &self.refresh_token) {
            (OAuthGrant::RefreshToken, Some(token)) => check_secret("refresh_token", token, false),
            (OAuthGrant::RefreshToken, None) => {
                wrong("the grant refresh_token needs a refresh_token".to_owned())
            }
            (OAuthGrant::ClientCredentials, None) => Ok(()),
            (OAuthGrant::ClientCredentials, Some(_)) => {
                wrong("the grant client_credentials takes no refresh_token".to_owned())
            }
        }
    }
}

/// A public name over TLS; with `loopback` this machine too, over either.
fn check_token_url(url: &str, loopback: bool) -> Result<(), Error> {
    let wrong = |message: &str| Err(malformed("vault.bad_oauth", message));
    if url.len() > limits::VAULT_TEXT_BYTES_MAX || url.contains('#') {
        return wrong("token_url is too long, or has a fragment");
    }
    let Ok(uri) = url.parse::<Uri>() else { return wrong("token_url is not a URL") };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("token_url is a whole URL, as https://login.example.com/token");
    };
    if authority.as_str().contains('@') {
        return wrong("token_url names no user; client_id and client_secret say who asks");
    }
    if loopback && matches!(authority.host(), "127.0.0.1" | "[::1]") && matches!(scheme, "http" | "https") {
        return Ok(());
    }
    if scheme != "https" {
        return wrong("token_url is https, since secrets go there");
    }
    match authority.host().contains('*') || palisade_egress::check_host_pattern(authority.as_str()).is_err() {
        true => wrong("token_url names no public host"),
        false => Ok(()),
    }
}

/// The cage has the list, and no program takes orders from what is on it.
fn check_env(env: &str) -> Result<(), Error> {
    if palisade_sandbox::may_be_set(env) {
        return Ok(());
    }
    let endings = palisade_sandbox::ENV_ALLOWED_ENDINGS.join(", ");
    let message = format!(
        "env is a name in capitals that ends like one of a credential, such as GITHUB_TOKEN: {endings}"
    );
    Err(malformed("vault.bad_env", message))
}

/// `is_plain` where it stands in a header as it is.
fn check_secret(what: &str, secret: &SecretString, is_plain: bool) -> Result<(), Error> {
    let text = secret.expose_secret();
    let wrong = |why: String| Err(malformed("vault.bad_value", format!("{what} {why}")));
    if !(1..=limits::VAULT_SECRET_BYTES_MAX).contains(&text.len()) {
        return wrong(format!("has from 1 to {} bytes", limits::VAULT_SECRET_BYTES_MAX));
    }
    if text.chars().any(char::is_control) {
        return wrong("has a control character, such as a line end".to_owned());
    }
    if text.trim() != text {
        return wrong("has white space around it, which no header keeps".to_owned());
    }
    match is_plain && !text.is_ascii() {
        true => wrong("has a character that no header field takes as it is".to_owned()),
        false => Ok(()),
    }
}

fn is_text(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn malformed(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Malformed, code, message)
}

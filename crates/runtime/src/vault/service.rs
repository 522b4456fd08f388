//! The port through which the vault reaches token endpoints. Whoever fills it sends exactly one request, follows no redirect and
//! reads no more than the answer's bound.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use palisade_protocol::limits::TOKEN_ANSWER_BYTES_MAX;
use palisade_vault::{ExposeSecret as _, SecretString};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// A call of the server's own, as a form.
#[derive(Debug)]
pub struct FormPost {
    /// The whole URL.
    pub url: String,
    /// Header fields besides the form's own; a value may be secret.
    pub headers: Vec<(&'static str, SecretString)>,
    /// The form.
    pub form: Vec<(&'static str, SecretString)>,
}

impl FormPost {
    /// The form as a body.
    pub fn body(&self) -> SecretString {
        // Room for everything encoded, so that growing leaves no copy behind.
        let bytes_max =
            self.form.iter().map(|(name, value)| name.len() + 3 * value.expose_secret().len() + 2);
        let mut body = String::with_capacity(bytes_max.sum());
        for (name, value) in &self.form {
            let separator = if body.is_empty() { "" } else { "&" };
            body.push_str(separator);
            body.push_str(name);
            body.push('=');
            body.extend(utf8_percent_encode(value.expose_secret(), FORM));
        }
        body.into()
    }

    /// One part of a form or of a user's name, encoded as a form is.
    pub(super) fn encoded(text: &str) -> String {
        utf8_percent_encode(text, FORM).to_string()
    }
}

/// The call did not get its answer.
#[derive(Debug, thiserror::Error)]
#[error("the call was not answered")]
pub struct ServiceFault(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Sends the server's own calls out: to OAuth token endpoints.
pub trait ServiceCalls: Send + Sync {
    /// Sends one; the answer's status and body, of at most [`ANSWER_BYTES_MAX`] bytes.
    fn post_form(&self, call: FormPost) -> BoxFuture<'static, Result<(u16, Bytes), ServiceFault>>;
}

/// What an implementation reads of an answer's body at most, in bytes; a longer one is a fault.
pub const ANSWER_BYTES_MAX: usize = TOKEN_ANSWER_BYTES_MAX;

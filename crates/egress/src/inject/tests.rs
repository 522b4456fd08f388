//! What a request to a managed host may bring, and what it becomes.

use palisade_protocol::CredentialName;

use super::*;
use crate::{Destination, http::head::Body};

const PLACEHOLDER: &str = "palisade_credential_0123456789abcdef0123456789abcdef";
const SECRET: &str = "s3cr%t/\"with\\odd&things";

fn credential(injection: Injection) -> Arc<CredentialRule> {
    Arc::new(CredentialRule {
        name: CredentialName::parse("thing").expect("a name"),
        allowed_hosts: vec!["api.test".into()],
        injection,
        env: None,
        placeholder: PLACEHOLDER.into(),
    })
}

fn request(path: &str, fields: &[(&str, &str)]) -> Forward {
    Forward {
        method: "GET".into(),
        destination: Destination::from_authority("api.test:443").expect("a destination"),
        path: path.into(),
        fields: fields.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec())).collect(),
        body: Body::None,
        websocket: false,
        expects_continue: false,
        close: false,
        knows_chunks: true,
    }
}

#[track_caller]
fn becomes(
    injection: Injection,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<(String, Vec<String>), Reason> {
    let credentials = [credential(injection)];
    let mut request = request(path, fields);
    let chosen = empty_slots(&mut request, &credentials)?;
    if mentions_placeholder(&request) {
        return Err(Reason::PlaceholderMisplaced);
    }
    attach(&mut request, &chosen, &SECRET.to_owned().into())?;
    let fields =
        request.fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
    Ok((request.path.clone(), fields.filter(|field| field != "Accept-Encoding: identity").collect()))
}

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

#[test]
fn the_secret_goes_into_its_place_and_nothing_else_is_changed() {
    let bearer = format!("Authorization: Bearer {SECRET}");
    let placeholder = format!("Bearer {PLACEHOLDER}");
    for asked in
        [&[][..], &[("Authorization", placeholder.as_str())], &[("authorization", ""), ("Cookie", "a=b")]]
    {
        let (path, fields) = becomes(Injection::Bearer, "/v1?a=%2F;b", asked).expect("passed on");
        assert_eq!((path.as_str(), fields), ("/v1?a=%2F;b", vec![bearer.clone()]), "{asked:?}");
    }
    let (_, fields) = becomes(
        Injection::Basic { username: "me".into() },
        "/",
        &[
            ("Authorization", &basic(&format!("anybody:{PLACEHOLDER}"))),
            ("Accept", "a"),
            ("Accept-Encoding", "br"),
        ],
    )
    .expect("passed on");
    assert_eq!(
        fields,
        ["Accept: a".to_owned(), format!("Authorization: {}", basic(&format!("me:{SECRET}")))]
    );
    let header = Injection::Header { name: "X-Thing".into() };
    let (_, fields) = becomes(header, "/", &[("x_thing", PLACEHOLDER)]).expect("passed on");
    assert_eq!(fields, [format!("X-Thing: {SECRET}")]);
}

/// EG-H6: what is put in is escaped for where it stands, and never read again.
#[test]
fn a_query_holds_the_secret_escaped() {
    let query = || Injection::Query { name: "appid".into() };
    let escaped = "appid=s3cr%25t%2F%22with%5Codd%26things";
    for (asked, sent) in [
        ("/x", format!("/x?{escaped}")),
        ("/x?a=b&c", format!("/x?a=b&c&{escaped}")),
        (&format!("/x?appid={PLACEHOLDER}&a=%20"), format!("/x?a=%20&{escaped}")),
        (&format!("/x?a=1;appid={PLACEHOLDER}"), format!("/x?a=1&{escaped}")),
    ] {
        assert_eq!(becomes(query(), asked, &[]).expect("passed on").0, sent, "{asked}");
    }
}

/// EG-H1, EG-H2, EG-F3: nobody brings a credential of his own, in any slot.
#[test]
fn foreign_credentials_are_refused() {
    let foreign = |path: &str, fields: &[(&str, &str)]| {
        assert_eq!(
            becomes(Injection::Bearer, path, fields),
            Err(Reason::ForeignCredential),
            "{path} {fields:?}"
        );
    };
    foreign("/", &[("Authorization", "Bearer theirs")]);
    foreign("/", &[("authorization", &basic("me:theirs"))]);
    foreign("/", &[("Authorization", &format!("Bearer {PLACEHOLDER}")), ("Authorization", "Bearer theirs")]);
    foreign("/", &[("Authorization", &format!("Bearer {PLACEHOLDER}x"))]);
    foreign("/", &[("Authorization", &format!("Basic {PLACEHOLDER}"))]);
    foreign("/", &[("Authorization", &basic(&format!("me:{PLACEHOLDER}:more")))]);
    foreign("/", &[("X-Api-Key", "theirs")]);
    foreign("/", &[("x_api_key", "theirs")]);
    foreign("/", &[("X.Goog.Api.Key", "theirs")]);
    foreign("/", &[("Private-Token", PLACEHOLDER)]);
    foreign("/?key=theirs", &[]);
    foreign("/?a=b&%61pi_key=theirs", &[]);
    foreign("/?a=b;Access_Token=theirs", &[]);
    assert_eq!(
        becomes(Injection::Query { name: "appid".into() }, "/?appid=theirs", &[]),
        Err(Reason::ForeignCredential)
    );
    let (_, kept) =
        becomes(Injection::Bearer, "/?monkey=1&tokens=2", &[("X-Request-Id", "1")]).expect("passed on");
    assert_eq!(kept[0], "X-Request-Id: 1");
}

/// EG-H3: a placeholder stands in its place or nowhere.
#[test]
fn a_placeholder_elsewhere_is_refused() {
    for (path, fields) in [
        (format!("/{PLACEHOLDER}"), vec![]),
        (format!("/?q={}", PLACEHOLDER.replace('_', "%5F")), vec![]),
        ("/".into(), vec![("User-Agent", PLACEHOLDER.to_owned())]),
        ("/".into(), vec![(PLACEHOLDER, "x".to_owned())]),
        ("/".into(), vec![("X-Forwarded-Authorization", basic(&format!("a:{PLACEHOLDER}")))]),
    ] {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(
            becomes(Injection::Bearer, &path, &fields),
            Err(Reason::PlaceholderMisplaced),
            "{path} {fields:?}"
        );
    }
}

/// EG-H10: what is signed would not be any more.
#[test]
fn signed_requests_are_refused() {
    for (path, fields) in [
        ("/", vec![("Authorization", "AWS4-HMAC-SHA256 Credential=AKIA/2026/x")]),
        ("/", vec![("authorization", "SharedKey account:sig")]),
        ("/?X-Amz-Signature=abc&X-Amz-Credential=x", vec![]),
        ("/?sig=abc", vec![]),
    ] {
        assert_eq!(
            becomes(Injection::Bearer, path, &fields),
            Err(Reason::SignedRequest),
            "{path} {fields:?}"
        );
    }
}

/// EG-F5: what could not have been stored is not sent either.
#[test]
fn an_unusable_secret_goes_nowhere() {
    for secret in ["", "a\r\nX: y", "a\nb", "a\0b", "gehe\u{ef}m"] {
        let mut request = request("/", &[]);
        let outcome = attach(&mut request, &credential(Injection::Bearer), &secret.to_owned().into());
        assert_eq!(outcome, Err(Reason::CredentialUnusable), "{secret:?}");
    }
}

/// The placeholder says which of several is meant.
#[test]
fn of_several_credentials_the_named_one_goes() {
    let first = credential(Injection::Bearer);
    let second = Arc::new(CredentialRule {
        name: CredentialName::parse("second").expect("a name"),
        injection: Injection::Header { name: "X-Api-Key".into() },
        placeholder: PLACEHOLDER.replace("0123", "9999"),
        ..(*first).clone()
    });
    let both = [first, second.clone()];
    let mut plain = request("/", &[]);
    assert_eq!(empty_slots(&mut plain, &both).expect("one").name.as_str(), "thing");
    let mut named = request("/", &[("x-api-key", &second.placeholder)]);
    assert_eq!(empty_slots(&mut named, &both).expect("one").name.as_str(), "second");
    let mut crossed = request("/", &[("x-api-key", PLACEHOLDER)]);
    assert_eq!(empty_slots(&mut crossed, &both), Err(Reason::ForeignCredential));
}

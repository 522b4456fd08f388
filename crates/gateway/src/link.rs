//! Where a list goes on: `Link: <…>; rel="next"` (RFC 8288), relative to the host that was asked, since only the client
//! knows under which name and scheme it reached this server.

use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{HeaderName, Uri};

/// Adds where the page after this one is: the same request with another `after`, percent-encoded as a query wants it.
pub(crate) fn add_next(headers: &mut HeaderMap, asked: &Uri, after: &str) {
    if let Ok(value) = HeaderValue::from_str(&next(asked, after)) {
        headers.insert(header::LINK, value);
    }
    if let Ok(value) = HeaderValue::from_str(after) {
        headers.insert(HeaderName::from_static("x-next-after"), value);
    }
}

fn next(asked: &Uri, after: &str) -> String {
    let is_kept = |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some("after");
    let kept = asked.query().unwrap_or("").split('&').filter(is_kept).map(str::to_owned);
    let query: Vec<String> = kept.chain([format!("after={after}")]).collect();
    // What would end the reference early can stand in no path of ours, but in a query.
    let query = query.join("&").replace('<', "%3C").replace('>', "%3E");
    format!("<{}?{query}>; rel=\"next\"", asked.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_same_request_further_on() {
        for (asked, expected) in [
            ("/v1/sessions", "</v1/sessions?after=z%20z>; rel=\"next\""),
            (
                "/v1/sessions?limit=5&after=a&order=desc",
                "</v1/sessions?limit=5&order=desc&after=z%20z>; rel=\"next\"",
            ),
            ("/f?path=a%3Eb&after=x", "</f?path=a%3Eb&after=z%20z>; rel=\"next\""),
        ] {
            assert_eq!(next(&asked.parse().unwrap(), "z%20z"), expected);
        }
    }
}

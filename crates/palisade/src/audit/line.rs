//! One record for people: when, who, what was decided, where to, what came of it. What a client wrote is shown and not obeyed.

use serde_json::Value;

use crate::client::one_line;

/// What is shown of a client's own words, in columns.
const WORDS_COLUMNS_MAX: usize = 80;

/// What is shown of anything else.
const LINE_PART_COLUMNS_MAX: usize = 300;

/// The record as a line.
pub(super) fn line(record: &Value) -> String {
    let text = |key: &str| record[key].as_str().unwrap_or_default();
    let time = text("ts").get(11..19).unwrap_or_default();
    let who = match (text("tenant"), text("session")) {
        ("", _) => text("principal").to_owned(),
        (tenant, session) => format!("{tenant}/{session}"),
    };
    // Words, and not only a colour.
    let decided = match (text("decision"), text("kind")) {
        ("refuse", _) => "REFUSED",
        (_, "open") => "open",
        (_, "close") => "closed",
        (_, other) => other,
    };
    let to = match (text("host"), record["port"].as_u64()) {
        ("", _) => String::new(),
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let asked = one_line(&format!("{} {}", text("method"), text("path")), WORDS_COLUMNS_MAX);
    let mut parts = vec![time.to_owned(), format!("{decided:<7}"), who, to, asked.trim().to_owned()];
    parts.extend(record["status"].as_u64().map(|status| status.to_string()));
    let why = if text("why").is_empty() { String::new() } else { format!(" ({})", text("why")) };
    parts.extend(
        Some(text("reason"))
            .filter(|it| !it.is_empty() && *it != "done")
            .map(|reason| format!("{reason}{why}")),
    );
    parts.extend(Some(text("cred_id")).filter(|it| !it.is_empty()).map(|name| format!("with {name}")));
    if let (Some(up), Some(down)) = (record["bytes_up"].as_u64(), record["bytes_down"].as_u64()) {
        parts.push(format!("{up} B up, {down} B down"));
    }
    parts.extend(record["ms"].as_u64().map(|ms| format!("{ms} ms")));
    parts.retain(|part| !part.is_empty());
    // Each by itself, so that none can push the others out.
    let parts: Vec<String> = parts.iter().map(|part| one_line(part, LINE_PART_COLUMNS_MAX)).collect();
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_readable_line() {
        let record = serde_json::json!({"ts": "2026-11-28T08:16:05.123Z", "kind": "refused", "decision": "refuse",
            "principal": "session", "tenant": "acme", "session": "sess_0123456789ab", "host": "evil\u{202e}.test", "port": 443,
            "method": "CONNECT", "path": "x\u{1b}[31m\ny", "status": 403, "reason": "certificate-refused",
            "why": "the certificate of the host has expired"});
        assert_eq!(
            line(&record),
            "08:16:05  REFUSED  acme/sess_0123456789ab  evil\\u{202e}.test:443  CONNECT x y  403  certificate-refused (the certificate of the host has expired)"
        );
    }
}

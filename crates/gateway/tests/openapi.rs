//! The OpenAPI document is a file under review: a change of the API shows in the diff.

use std::path::Path;

#[test]
fn the_document_is_the_golden_one() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let made = format!("{:#}\n", palisade_gateway::openapi_document());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi.json is not what the code says; `cargo xtask openapi` writes it anew"
    );
}

#[test]
fn every_operation_has_an_id_a_summary_and_its_errors() {
    let document = palisade_gateway::openapi_document();
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is used twice");
            assert!(
                operation["summary"].is_string() || operation["description"].is_string(),
                "{method} {path}"
            );
            if path.starts_with("/v1/") {
                assert!(operation["responses"]["401"].is_object(), "{method} {path} names no 401");
            }
        }
    }
}

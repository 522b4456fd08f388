//! The arrows between rooms, as ARCHITECTURE.md draws them: each boundary is a crate, and only these may lean on
//! those. A new arrow needs this table and ARCHITECTURE.md changed in the same commit.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every room and what it may import of the others.
const ARROWS: &[(&str, &[&str])] = &[
    // L0: nouns and tools that know nobody.
    ("beneath", &[]),
    ("protocol", &[]),
    ("hand-protocol", &[]),
    // L1: what may see secrets, start processes, reach the network or write the database: one room each.
    ("store", &["protocol"]),
    ("vault", &["protocol"]),
    ("workspace", &["protocol", "beneath"]),
    ("sandbox", &["protocol", "beneath", "hand-protocol"]),
    ("inference", &["protocol"]),
    ("egress", &["protocol"]),
    ("agent", &["protocol", "hand-protocol"]),
    ("planner", &["protocol"]),
    // L2: where they meet.
    (
        "runtime",
        &[
            "protocol",
            "hand-protocol",
            "store",
            "vault",
            "workspace",
            "sandbox",
            "inference",
            "egress",
            "agent",
        ],
    ),
    // L3: HTTP in.
    ("gateway", &["protocol", "runtime"]),
    // L4: the binary, the only reader of configuration.
    ("palisade", &["protocol", "vault", "sandbox", "inference", "egress", "planner", "runtime", "gateway"]),
    // Inside the sandbox.
    ("hand", &["beneath", "hand-protocol"]),
    // Not part of the product.
    ("testkit", &[]),
    ("xtask", &["testkit", "sandbox", "protocol"]),
];

/// Libraries that only the named rooms may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("secrecy", &["vault", "egress", "palisade"]),
    ("axum", &["gateway", "planner"]),
    ("toml", &["palisade"]),
    ("reqwest", &["egress", "palisade", "testkit"]),
];

fn room(package: &str) -> Option<&str> {
    match package {
        "palisade" | "xtask" => Some(package),
        other => other.strip_prefix("palisade-"),
    }
}

#[test]
fn rooms_lean_only_on_what_the_architecture_allows() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = room(&package.name).unwrap_or_else(|| panic!("{} is not named like a room", package.name));
        let Some(allowed) = arrows.get(name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        // What tests lean on is their own affair.
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            if dependency.path.is_some() {
                let target = room(&dependency.name).unwrap_or(&dependency.name);
                if !allowed.contains(&target) {
                    wrong.push(format!("{name} → {target}"));
                }
            }
            for (library, rooms) in RESERVED {
                if dependency.name == *library && !rooms.contains(&name) {
                    wrong.push(format!("{name} uses {library}, which is reserved for {rooms:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that ARCHITECTURE.md does not draw:\n{}", wrong.join("\n"));
}

#[test]
fn the_nouns_do_no_input_or_output() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let protocol =
        metadata.packages.iter().find(|package| package.name.as_str() == "palisade-protocol").unwrap();
    for dependency in protocol.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
        let pure = ["serde", "serde_json", "thiserror", "utoipa"].contains(&dependency.name.as_str());
        assert!(pure, "protocol is pure, and {} may not be", dependency.name);
    }
}

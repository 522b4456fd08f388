//! The file tools through the whole way: server, hand, the sandbox's mounts.

use serde_json::json;

use crate::support::{Bench, stdout, tool};

#[tokio::test]
async fn a_file_is_written_read_edited_and_found() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (name, arguments, expected) in [
        (
            "Write",
            json!({"file_path": "notes/a.md", "content": "one\ntwo\n"}),
            "Wrote /workspace/notes/a.md (8 bytes).",
        ),
        ("Read", json!({"file_path": "notes/a.md"}), "     1\tone\n     2\ttwo\n"),
        ("Read", json!({"file_path": "/workspace/notes/a.md", "offset": 2, "limit": 1}), "     2\ttwo\n"),
        (
            "Edit",
            json!({"file_path": "notes/a.md", "old_string": "two", "new_string": "three"}),
            "Replaced 1 occurrence in /workspace/notes/a.md.",
        ),
        ("Grep", json!({"pattern": "thr.e", "output_mode": "content"}), "/workspace/notes/a.md:2:three\n"),
        ("Grep", json!({"pattern": "one"}), "/workspace/notes/a.md\n"),
        ("Glob", json!({"pattern": "**/*.md"}), "/workspace/notes/a.md\n"),
    ] {
        let output = tool(&sandbox, name, arguments.clone()).await;
        assert_eq!((output.content.as_str(), output.is_error), (expected, false), "{name} {arguments}");
    }
    assert_eq!(bench.get("notes/a.md"), "one\nthree\n");
}

#[tokio::test]
async fn failures_are_told_to_the_model_with_a_code() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(&sandbox, "mkfifo pipe; mkdir d; printf '%%PDF-1.7' > doc.pdf; printf 'aa' > twice; touch locked; chmod 0 locked").await;
    for (name, arguments, code) in [
        ("Read", json!({"file_path": "pipe"}), "file.not_regular"),
        ("Edit", json!({"file_path": "pipe", "old_string": "a", "new_string": "b"}), "file.not_regular"),
        ("Write", json!({"file_path": "pipe", "content": "x"}), "file.not_regular"),
        ("Grep", json!({"pattern": "x", "path": "pipe"}), "file.not_regular"),
        ("Read", json!({"file_path": "/dev/zero"}), "file.not_regular"),
        ("Read", json!({"file_path": "/proc/1/environ"}), "file.denied"),
        ("Read", json!({"file_path": "locked"}), "file.denied"),
        ("Read", json!({"file_path": "d"}), "file.is_directory"),
        ("Read", json!({"file_path": "doc.pdf"}), "file.binary"),
        ("Read", json!({"file_path": "missing"}), "file.not_found"),
        ("Write", json!({"file_path": "/usr/x", "content": "x"}), "file.read_only"),
        ("Edit", json!({"file_path": "twice", "old_string": "a", "new_string": "b"}), "edit.many_matches"),
    ] {
        let output = tool(&sandbox, name, arguments.clone()).await;
        assert_eq!(
            (output.code.as_deref(), output.is_error),
            (Some(code), true),
            "{name} {arguments}: {output:?}"
        );
    }
}

#[tokio::test]
async fn large_contents_pass_and_too_large_ones_are_refused() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let content = "0123456789abcde\n".repeat(256 * 1024);
    let output = tool(&sandbox, "Write", json!({"file_path": "large", "content": content})).await;
    assert!(!output.is_error, "{output:?}");
    assert_eq!(stdout(&sandbox, "wc -c < large").await, content.len().to_string());
    let read = tool(&sandbox, "Read", json!({"file_path": "large"})).await;
    assert!(
        read.content.len() <= palisade_protocol::limits::TOOL_OUTPUT_BYTES_MAX
            && read.content.contains("go on with")
    );
    let output = tool(&sandbox, "Write", json!({"file_path": "huge", "content": content.repeat(5)})).await;
    assert_eq!(output.code.as_deref(), Some("tool.input_too_large"));
}

#[tokio::test]
async fn a_sparse_giant_is_not_read() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    // From outside: inside no file may be made so large.
    let giant = std::fs::File::create(bench.workspace.join("giant")).unwrap();
    giant.set_len(100 * 1024 * 1024 * 1024).unwrap();
    let output = tool(&sandbox, "Read", json!({"file_path": "giant"})).await;
    assert_eq!(output.code.as_deref(), Some("file.too_large"), "{output:?}");
}

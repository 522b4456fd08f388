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
            "Wrote /workspace/notes/a.md (8 bytes).\n[note: the folder /workspace/notes was made]",
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
        ("Write", json!({"file_path": "locked", "content": "x"}), "file.denied"),
        ("Write", json!({"file_path": "new/", "content": "x"}), "file.bad_path"),
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
    let content = "0123456789abcde\n".repeat(64 * 1024);
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

#[tokio::test]
async fn home_is_known_and_told_apart_from_the_workspace() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let said = tool(&sandbox, "Write", json!({"file_path": "~/notes.txt", "content": "kept\n"})).await;
    let is_outside = !stdout(&sandbox, "echo $HOME").await.starts_with("/workspace/");
    assert_eq!(said.content.contains("results belong below"), is_outside, "{}", said.content);
    let scratch = tool(&sandbox, "Write", json!({"file_path": "/tmp/x", "content": "x"})).await;
    assert!(scratch.content.contains("clients cannot fetch files outside /workspace"), "{}", scratch.content);
    assert_eq!(stdout(&sandbox, "cat ~/notes.txt; ls -A /workspace | grep '~' || true").await, "kept");
    let read = tool(&sandbox, "Read", json!({"path": "~/notes.txt"})).await;
    assert_eq!(read.content, "     1\tkept\n");
    let found = tool(&sandbox, "Glob", json!({"pattern": "~/*.txt"})).await;
    assert!(found.content.contains("/notes.txt"), "{}", found.content);
}

#[tokio::test]
async fn what_a_search_cannot_look_at_is_named() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    stdout(
        &sandbox,
        "echo needle > locked.txt; mkdir closed; echo needle > closed/in.txt; chmod 0 locked.txt closed; ln -s /usr/share out; \
         printf 'a\\0b\\nneedle\\n' > 'nul.log'; printf '1,3,4\\r\\n' > crlf.csv; mkdir -p 'app/[id]'; echo x > 'app/[id]/page.tsx'",
    )
    .await;
    for (arguments, expected) in [
        (
            json!({"pattern": "needle"}),
            "/workspace/nul.log\n[note: not looked at: 2 that cannot be read: /workspace/closed, ",
        ),
        (
            json!({"pattern": "needle", "glob": "!*.log"}),
            "No match for needle under /workspace.\n[note: not looked at: 2 that",
        ),
        (json!({"pattern": "needle"}), "[note: not looked at: 1 link that leads elsewhere: /workspace/out]"),
        (json!({"pattern": "3,4$", "-n": true}), "/workspace/crlf.csv:1:1,3,4\n"),
        (json!({"pattern": "NEEDLE", "-i": true, "head_limit": 1}), "/workspace/nul.log"),
        (json!({"pattern": "needle", "invert": true}), "It takes pattern, path, glob,"),
    ] {
        let found = tool(&sandbox, "Grep", arguments.clone()).await;
        assert!(found.content.contains(expected), "{arguments}: {}", found.content);
    }
    let found = tool(&sandbox, "Glob", json!({"pattern": "app/[id]/page.tsx"})).await;
    assert_eq!(found.content, "/workspace/app/[id]/page.tsx\n");
    stdout(&sandbox, "chmod 700 closed").await;
}

#[tokio::test]
async fn a_search_through_a_giant_ends_and_says_so() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let giant = std::fs::File::create(bench.workspace.join("giant")).unwrap();
    giant.set_len(100 * 1024 * 1024 * 1024).unwrap();
    let found = tool(&sandbox, "Grep", json!({"pattern": "needle"})).await;
    assert!(!found.is_error && found.content.contains("[note: "), "{found:?}");
}

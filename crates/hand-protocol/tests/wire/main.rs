//! The messages between server and hand under damage: a seeded corpus, mutated. `fuzz/` runs the same check for as
//! long as one likes.

#[cfg(test)]
mod check;

#[cfg(test)]
mod tests {
    use palisade_hand_protocol::{
        CommandLimits, Edit, FileOp, FileResult, Grep, GrepMode, Identity, LaunchSpec, Left, Read,
        Replacement, Reply, Request, RootInside, ScopeMount, SkillMount,
    };
    use proptest::prelude::*;
    use serde_json::to_vec;

    use super::check::check;

    /// One of each kind at least.
    fn corpus() -> Vec<Vec<u8>> {
        let requests = [
            Request::Setup {
                env: vec![("PATH".into(), "/usr/bin".into())],
                roots: vec![RootInside { path: "/workspace/a ü".into(), writable: true }],
                rlimits: Some(CommandLimits { data_bytes: u64::MAX, processes: 0 }),
                listen: true,
            },
            Request::Run { id: u64::MAX, timeout_ms: Some(1), background: false },
            Request::File { id: 0, timeout_ms: u64::MAX },
            Request::Kill { id: 1 },
            Request::EndTurn { id: 2 },
        ];
        let replies = [
            Reply::Ready { landlock_abi: 7, roots: vec![Identity { dev: 1, ino: u64::MAX }] },
            Reply::Started { id: 1, pid: -1, log: Some("/workspace/l\n".into()) },
            Reply::Exited {
                id: 1,
                code: Some(i32::MIN),
                signal: None,
                timed_out: true,
                left: Left { ended: vec!["a".into()], adrift: vec!["b".into()], tail: "t\n".into() },
            },
            Reply::Refused { id: 1, message: "\"\\\u{0}".into() },
            Reply::TurnEnded { id: 3 },
            Reply::Status { key: "k".repeat(64), value: "v".repeat(1024) },
        ];
        let operations = [
            FileOp::Read(Read { file_path: "a".into(), offset: Some(1), limit: None, column: None }),
            FileOp::Edit(Edit {
                file_path: "a".into(),
                edits: vec![Replacement { old_string: "o".into(), ..Replacement::default() }],
            }),
            FileOp::Grep(Grep { pattern: "(".into(), output_mode: Some(GrepMode::Count), ..Grep::default() }),
        ];
        let launch = LaunchSpec {
            bwrap: "/usr/bin/bwrap".into(),
            hand: "/h".into(),
            rootfs: "/".into(),
            python_packages: None,
            workspace: "/w".into(),
            mounts: vec![ScopeMount { path: String::new(), writable: true }],
            skills: vec![SkillMount { name: "s".into(), source: "/s".into() }],
            trust_anchor: Some("-----BEGIN".into()),
            home: "/h".into(),
            cgroups: vec!["/sys/fs/cgroup/x/cgroup.procs".into()],
            tmp_bytes: 1,
            shm_bytes: 1,
        };
        let result = FileResult { content: "c".into(), is_error: true, code: Some("file.x".into()) };
        let mut all: Vec<Vec<u8>> = requests.iter().map(|it| to_vec(it).unwrap()).collect();
        all.extend(replies.iter().map(|it| to_vec(it).unwrap()));
        all.extend(operations.iter().map(|it| to_vec(it).unwrap()));
        all.extend([to_vec(&launch).unwrap(), to_vec(&result).unwrap()]);
        all
    }

    /// Bytes that mean something to JSON, more often than chance has them.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\0123456789-+eE.ntfu \x00\xff".to_vec())]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_messages_are_errors_or_messages(
            at in any::<proptest::sample::Index>(),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), byte(), 0..3_u8), 0..6),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let corpus = corpus();
            let mut bytes = at.get(&corpus).clone();
            for (place, byte, how) in damage {
                let place = place.index(bytes.len() + 1);
                match how {
                    0 if place < bytes.len() => bytes[place] = byte,
                    1 if place < bytes.len() => drop(bytes.remove(place)),
                    _ => bytes.insert(place, byte),
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            check(&bytes);
        }

        #[test]
        fn noise_is_no_message(bytes in proptest::collection::vec(byte(), 0..512)) {
            check(&bytes);
        }
    }

    #[test]
    fn depth_has_an_end() {
        check(&[b'['; 100_000]);
        check(format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000)).as_bytes());
    }

    #[test]
    fn the_corpus_is_understood() {
        for bytes in corpus() {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let understood = serde_json::from_slice::<Request>(&bytes).is_ok()
                || serde_json::from_slice::<Reply>(&bytes).is_ok()
                || serde_json::from_slice::<FileOp>(&bytes).is_ok()
                || serde_json::from_slice::<LaunchSpec>(&bytes).is_ok()
                || serde_json::from_slice::<FileResult>(&bytes).is_ok();
            assert!(understood, "{text}");
            check(&bytes);
        }
    }
}

//! The log on a real disk: it goes on after any end, and shows whatever was changed.

use std::fs;

use super::*;
use crate::Destination;

const SMALL: AuditSettings = AuditSettings { segment_bytes_max: 2_000, sync_each: false };

fn record(number: usize) -> Record {
    let destination = Destination::from_authority("allowed.test:443").expect("a destination");
    Record::new(Kind::Open, format!("c-{number}"), None).to(&destination).asked("CONNECT", "allowed.test:443")
}

async fn write(folder: &Path, settings: AuditSettings, count: usize) {
    let log = AuditLog::open(folder, settings).expect("a log");
    for number in 0..count {
        log.append(record(number)).await.expect("written");
    }
}

#[tokio::test]
async fn a_log_goes_on_where_it_ended_and_verifies() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(verify(folder.path()).expect("empty").last_seq, 0);
    for _ in 0..3 {
        write(folder.path(), SMALL, 30).await;
    }
    let verified = verify(folder.path()).expect("whole");
    assert_eq!((verified.first_seq, verified.last_seq, verified.torn), (1, 90, false));
    assert!(verified.segments >= 3, "{verified:?}");
}

#[tokio::test]
async fn records_that_are_written_at_once_are_all_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(folder.path(), SMALL).expect("a log");
    let all = futures_util::future::join_all((0..500).map(|number| log.append(record(number)))).await;
    assert!(all.iter().all(Result::is_ok));
    drop(log);
    assert_eq!(verify(folder.path()).expect("whole").last_seq, 500);
}

#[tokio::test]
async fn a_log_has_one_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = AuditLog::open(folder.path(), SMALL).expect("a log");
    AuditLog::open(folder.path(), SMALL).expect_err("it is taken");
    drop(first);
    AuditLog::open(folder.path(), SMALL).expect("free again");
}

/// EG-J9: killed within a write, or between the steps of a rotation: no number is lost or doubled.
#[tokio::test]
async fn a_kill_leaves_a_log_that_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), AuditSettings::default(), 10).await;
    let current = folder.path().join("current.jsonl");
    let whole = fs::read(&current).expect("the log");
    let last_line = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').expect("lines") + 1;
    for cut in last_line..whole.len() {
        fs::write(&current, &whole[..cut]).expect("torn");
        write(folder.path(), AuditSettings::default(), 1).await;
        let verified = verify(folder.path()).expect("whole");
        assert_eq!((verified.last_seq, verified.torn), (10, false), "cut at {cut}");
    }
    // Renamed, and killed before the next file was there.
    fs::rename(&current, folder.path().join("segment-000000000001-000000000010.jsonl")).expect("renamed");
    write(folder.path(), AuditSettings::default(), 5).await;
    assert_eq!(verify(folder.path()).expect("whole").last_seq, 15);
    // The next file was made, and nothing written.
    fs::rename(&current, folder.path().join("segment-000000000011-000000000015.jsonl")).expect("renamed");
    fs::write(&current, b"").expect("empty");
    write(folder.path(), AuditSettings::default(), 1).await;
    assert_eq!(verify(folder.path()).expect("whole").last_seq, 16);
}

/// EG-J9: killed between the steps of packing: each record stays in one readable file, and the next start finishes the work.
#[tokio::test]
async fn a_kill_while_it_packs_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (plain, packed) =
        ("segment-000000000001-000000000010.jsonl", "segment-000000000001-000000000010.jsonl.zst");
    write(folder.path(), AuditSettings::default(), 10).await;
    fs::rename(path("current.jsonl"), path(plain)).expect("renamed");
    let whole = fs::read(path(plain)).expect("a segment");
    let good = zstd::encode_all(&whole[..], 3).expect("packed");
    type Left<'l> = &'l [(&'l str, &'l [u8])];
    let left: [Left<'_>; 4] = [
        &[(plain, &whole)],
        &[(plain, &whole), ("segment-000000000001-000000000010.jsonl.zst.tmp", &good[..20])],
        &[(plain, &whole), (packed, &good)],
        &[(packed, &good)],
    ];
    for files in left {
        for entry in fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("one").path()) {
            fs::remove_file(entry).expect("removed");
        }
        for (name, bytes) in files {
            fs::write(path(name), bytes).expect("as it was left");
        }
        assert_eq!(verify(folder.path()).expect("whole as it lies").last_seq, 10);
        write(folder.path(), AuditSettings::default(), 1).await;
        let verified = verify(folder.path()).expect("whole");
        assert_eq!((verified.last_seq, verified.segments), (11, 1));
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("listed")
            .map(|entry| entry.expect("one").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        assert_eq!(names, ["current.jsonl", "lock", packed]);
    }
}

#[tokio::test]
async fn a_segment_is_closed_when_somebody_wants_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(folder.path(), AuditSettings::default()).expect("a log");
    log.close_segment().await.expect("nothing is no segment");
    for _ in 0..3 {
        log.append(record(1)).await.expect("written");
        log.close_segment().await.expect("closed");
    }
    drop(log);
    let verified = verify(folder.path()).expect("whole");
    assert_eq!((verified.last_seq, verified.segments), (3, 3));
}

#[tokio::test]
async fn whatever_is_changed_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), SMALL, 40).await;
    let segment = segment::segments(folder.path()).expect("listed").remove(0);
    assert!(segment.is_packed());
    let segment = segment.path;
    let packed = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("packed");
    let whole = zstd::decode_all(fs::File::open(&segment).expect("a segment")).expect("unpacked");
    let whole = String::from_utf8(whole).expect("text");
    let lines: Vec<&str> = whole.lines().collect();
    let without = |skipped: usize| -> String {
        lines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != skipped)
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    };
    let mut swapped = lines.clone();
    swapped.swap(0, 1);
    let renumbered = whole.replacen("\"seq\":2,", "\"seq\":3,", 1);
    for changed in [
        whole.replacen("allowed.test", "changed.test", 1),
        without(0),
        without(2),
        without(lines.len() - 1),
        swapped.join("\n") + "\n",
        renumbered,
        whole.replacen('{', "[", 1),
    ] {
        fs::write(&segment, packed(&changed)).expect("changed");
        let failure = verify(folder.path()).expect_err("it shows");
        assert!(matches!(failure, EgressError::AuditBroken { .. }), "{failure}");
    }
    let bytes = packed(&whole);
    fs::write(&segment, &bytes[..bytes.len() / 2]).expect("cut");
    verify(folder.path()).expect_err("half a segment");
    fs::write(&segment, bytes).expect("as it was");
    verify(folder.path()).expect("whole again");
    fs::remove_file(segment).expect("shipped and removed");
    assert!(verify(folder.path()).expect("whole from there on").first_seq > 1);
}

/// A log that was cut is told from a whole one: at its end by its anchor, at its beginning by what was shipped. One that is written on
/// after it was cut does not become whole.
#[tokio::test]
async fn what_was_cut_off_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, anchor) = (folder.path().join("audit"), folder.path().join("anchors/audit.json"));
    let open = || AuditLog::open_anchored(&place, &anchor, AuditSettings::default()).expect("a log");
    let log = open();
    for number in 0..10 {
        log.append(record(number)).await.expect("written");
    }
    // While it is written, and when it is closed.
    assert!(verify_anchored(&place, &anchor, None).expect("whole").anchored);
    drop(log);
    assert_eq!(verify_anchored(&place, &anchor, None).expect("whole").last_seq, 10);
    let current = place.join("current.jsonl");
    let whole = fs::read_to_string(&current).expect("the log");
    let lines: Vec<String> = whole.lines().map(|line| format!("{line}\n")).collect();
    let cut = |from: usize, to: usize| fs::write(&current, lines[from..to].concat()).expect("cut");
    for last in [9, 7, 0] {
        cut(0, last);
        let told = verify_anchored(&place, &anchor, None).expect_err("it shows").to_string();
        assert!(told.contains(&format!("record 10 was written, and the last one here is {last}")), "{told}");
    }
    cut(2, 10);
    let told = verify_anchored(&place, &anchor, None).expect_err("it shows").to_string();
    assert!(told.contains("the first record here is 3") && told.contains("--first 3"), "{told}");
    verify_anchored(&place, &anchor, Some(3)).expect("the operator says so");
    fs::write(place.join("shipped"), "1").expect("written");
    verify_anchored(&place, &anchor, None).expect_err("the second record was not");
    fs::write(place.join("shipped"), "2").expect("written");
    verify_anchored(&place, &anchor, None).expect("both were");
    // Another log that is whole in itself.
    let other = folder.path().join("other");
    write(&other, AuditSettings::default(), 10).await;
    fs::copy(other.join("current.jsonl"), &current).expect("replaced");
    let told = verify_anchored(&place, &anchor, None).expect_err("it shows").to_string();
    assert!(told.contains("it is not the record that was written"), "{told}");
    // It goes on behind the gap, and the gap stays.
    cut(0, 7);
    open().append(record(11)).await.expect("written");
    let told = verify_anchored(&place, &anchor, None).expect_err("it shows").to_string();
    assert!(told.contains("line 8: its number does not follow"), "{told}");
    let last = fs::read_to_string(&current).expect("the log").lines().last().map(str::to_owned);
    assert!(last.expect("a line").contains("\"seq\":11,"));
}

/// The anchor is never ahead of the log: what a killed process had written counts, and after the machine stopped only what was synced.
#[test]
fn an_anchor_knows_what_a_crash_leaves() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, anchor) = (folder.path().join("audit"), folder.path().join("audit.json"));
    let look = || std::sync::mpsc::sync_channel(1).0;
    let mut segments = Segments::open(&place, Some(&anchor), SMALL, look()).expect("a log");
    segments.append([&record(1), &record(2)].into_iter()).expect("written");
    segments.sync().expect("synced");
    segments.append([&record(3), &record(4)].into_iter()).expect("written");
    let current = place.join("current.jsonl");
    let whole = fs::read_to_string(&current).expect("the log");
    // The process is gone at this moment; a record may be there that the anchor has not heard of.
    drop(segments);
    let said = fs::read_to_string(&anchor).expect("an anchor");
    assert_eq!(said.len(), 512);
    verify_anchored(&place, &anchor, None).expect("whole");
    let end = |count: usize| whole.lines().take(count).map(|line| format!("{line}\n")).collect::<String>();
    fs::write(&current, end(3)).expect("cut");
    verify_anchored(&place, &anchor, None).expect_err("it shows");
    // Another start of the machine: the last two may rightly be lost, and no more.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id");
    fs::write(&anchor, said.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).expect("written");
    for count in [4, 3, 2] {
        fs::write(&current, end(count)).expect("cut");
        verify_anchored(&place, &anchor, None).expect("whole");
    }
    fs::write(&current, end(1)).expect("cut");
    verify_anchored(&place, &anchor, None).expect_err("it shows");
    // It was made, and the machine stopped before it was written.
    fs::write(&anchor, "").expect("empty");
    assert!(!verify_anchored(&place, &anchor, None).expect("whole").anchored);
    fs::write(&anchor, "{").expect("torn");
    verify_anchored(&place, &anchor, None).expect_err("it cannot be read");
}

/// EG-J7: no space left: refused, nothing half-written, and it goes on when there is room again.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut segments =
        Segments::open(folder.path(), None, SMALL, std::sync::mpsc::sync_channel(1).0).expect("a log");
    segments.append([&record(1)].into_iter()).expect("written");
    segments.replace_current(fs::OpenOptions::new().append(true).open("/dev/full").expect("a full device"));
    segments.append([&record(2)].into_iter()).expect_err("no space left");
    let current = fs::OpenOptions::new().append(true).open(folder.path().join("current.jsonl"));
    segments.replace_current(current.expect("the log"));
    segments.append([&record(3)].into_iter()).expect("written");
    assert_eq!(verify(folder.path()).expect("whole").last_seq, 2);
}

/// EG-J8: what a client sent is one JSON line, cut, without its query.
#[test]
fn a_record_is_one_line() {
    let nasty =
        format!("http://a.test/\n\x1b[31m{{\"seq\":1}}\u{202e}{}?token=secret", "x".repeat(1_000_000));
    let record = Record::new(Kind::Refused, "c-1".into(), None).asked("GET\r\nX", &nasty);
    let line = serde_json::to_string(&record).expect("JSON");
    assert!(line.len() < 2_000 && line.bytes().all(|byte| byte >= b' '), "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["truncated"], true);
    assert_eq!(value["method"], "GET\r\nX");
    for target in
        ["http://u:secret@a.test/x", "u:secret@a.test:443", "http://a.test/?secret", "http://a.test/#secret"]
    {
        let record = Record::new(Kind::Refused, "c-1".into(), None).asked("GET", target);
        let line = serde_json::to_string(&record).expect("JSON");
        assert!(!line.contains("secret") && line.contains("a.test"), "{line}");
    }
}

//! Answers of managed hosts: what carries no secret comes through as from any other host, at once and with everything that clients rely on.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::intercept::{OLD_SECRET, SECOND_SECRET, SECRET, World, ok};

/// Reads until this has come, and not a byte longer.
async fn read_as_far_as(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut told = Vec::new();
    while !told.ends_with(end.as_bytes()) {
        let read = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read_buf(&mut told)).await;
        assert!(read.expect("in time").expect("readable") > 0, "{}", told.escape_ascii());
    }
    String::from_utf8_lossy(&told).into_owned()
}

/// An event that is followed by silence is there; the beginning of a secret waits.
#[tokio::test]
async fn a_small_event_is_passed_on_at_once() {
    for coding in ["", "Content-Encoding: gzip\r\n"] {
        let world = World::start(move |_| {
            let mut event = b"data: hi\n\n".to_vec();
            if !coding.is_empty() {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                writer.write_all(&event).and_then(|()| writer.flush()).expect("written");
                event = std::mem::take(writer.get_mut());
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}Transfer-Encoding: chunked\r\n\r\n");
            [head.into_bytes(), format!("{:x}\r\n", event.len()).into_bytes(), event, b"\r\n".to_vec()].concat()
        })
        .await;
        let door = world.door("acme");
        let mut stream = world.opened(&door, "api.test").await;
        stream.write_all(world.get("api.test", "").as_bytes()).await.expect("sent");
        // The origin goes on being silent; nobody ends anything.
        read_as_far_as(&mut stream, "data: hi\n\n\r\n").await;
        drop(stream);
        door.close();
        world.stop().await;
    }
}

/// An answer that is cut off is seen to be, whatever its framing; what came of it is there.
#[tokio::test]
async fn a_cut_answer_is_no_whole_one() {
    for (host, head) in [
        ("api.test", "HTTP/1.1 200 OK\r\nConnection: cut\r\n\r\n"),
        ("seen.test", "HTTP/1.1 200 OK\r\nConnection: cut\r\n\r\n"),
        ("api.test", "HTTP/1.1 200 OK\r\nConnection: cut\r\nContent-Length: 50\r\n\r\n"),
        ("api.test", "HTTP/1.1 200 OK\r\nConnection: cut\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n"),
    ] {
        let world = World::start(move |_| format!("{head}something that breaks").into_bytes()).await;
        let mut stream = world.opened(&world.door("acme"), host).await;
        stream.write_all(world.get(host, "").as_bytes()).await.expect("sent");
        let mut told = Vec::new();
        let end =
            tokio::time::timeout(std::time::Duration::from_secs(30), stream.read_to_end(&mut told)).await;
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains("something that break"), "{host} {head:?}: {told}");
        assert!(!told.ends_with("0\r\n\r\n"), "{host} {head:?}: {told}");
        end.expect("an end").expect_err("and TLS does not say goodbye");
        let closes =
            || world.records().into_iter().filter(|it| it["kind"] == "close" && it["method"] == "GET");
        palisade_testkit::wait_for("a record", || async { closes().next() }).await;
        assert_eq!(closes().next().expect("one")["reason"], "answer-truncated");
        world.stop().await;
    }
    // One that says that it ends is whole.
    let world = World::start(|_| b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it".to_vec()).await;
    let answer = world.ask("api.test", world.get("api.test", "")).await;
    assert!(answer.ends_with("all of it\r\n0\r\n\r\n"), "{answer}");
    world.stop().await;
}

/// A file of some kilobytes with the secret in it.
fn file() -> Vec<u8> {
    let noise =
        |from: u32| (from..from + 20_000).map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80);
    noise(0).chain(SECRET.bytes()).chain(noise(7)).collect()
}

/// Serves the file as file servers do.
fn serve_file(request: &str) -> Vec<u8> {
    let file = file();
    let range = request.lines().find_map(|line| line.strip_prefix("Range: bytes="));
    let (first, last) = match range.and_then(|range| range.split_once('-')) {
        None => (0, file.len() - 1),
        Some(("", count)) => (file.len().saturating_sub(count.parse().expect("a number")), file.len() - 1),
        Some((first, "")) => (first.parse().expect("a number"), file.len() - 1),
        Some((first, last)) => {
            (first.parse().expect("a number"), last.parse::<usize>().expect("a number").min(file.len() - 1))
        }
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let range = if range.is_some() {
        format!("Content-Range: bytes {first}-{last}/{}\r\n", file.len())
    } else {
        String::new()
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\nLast-Modified: Mon, 01 Jun 2026 00:00:00 GMT\r\n{range}Content-Length: {}\r\n\r\n",
        last + 1 - first
    );
    [head.as_bytes(), &file[first..=last]].concat()
}

/// Length, tag and ranges stay; a download that was cut goes on, and what it becomes is the whole; no part shows a part of the secret.
#[tokio::test]
async fn a_download_is_resumed() {
    let world = World::start(serve_file).await;
    let ask = async |range: &str| {
        let mut stream = world.opened(&world.door("acme"), "api.test").await;
        stream.write_all(world.get("api.test", range).as_bytes()).await.expect("sent");
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.expect("an answer");
        let end = told.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8_lossy(&told[..end]).into_owned(), told[end..].to_vec())
    };
    let (head, whole) = ask("").await;
    let length = file().len();
    for field in [format!("Content-Length: {length}"), "ETag: \"v1\"".into(), "Accept-Ranges: bytes".into()] {
        assert!(head.contains(&field), "{field}: {head}");
    }
    assert_eq!(whole.len(), length);
    assert!(!whole.windows(6).any(|window| SECRET.as_bytes().windows(6).any(|part| part == window)));
    let at = 20_000;
    assert!(whole[at..].starts_with(b"[redacted:thing]"));
    let ranges = [
        (0, 10),
        (at - 5, at + 3),
        (at + 1, at + 2),
        (at + 3, at + SECRET.len() + 5),
        (at + SECRET.len(), length - 1),
        (length - 1, length - 1),
    ];
    for (first, last) in ranges {
        let (head, part) = ask(&format!("Range: bytes={first}-{last}\r\nIf-Range: \"v1\"\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert!(head.contains(&format!("Content-Range: bytes {first}-{last}/{length}\r\n")), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", last + 1 - first)), "{head}");
        assert!(part == whole[first..=last], "{first}-{last}");
        let asked = world.origin.requests().pop().expect("one");
        assert!(asked.contains("If-Range: \"v1\""), "{asked}");
    }
    for (range, first) in [(format!("bytes={}-", at + 9), at + 9), ("bytes=-300".into(), length - 300)] {
        let (head, part) = ask(&format!("Range: {range}\r\n")).await;
        assert!(head.contains(&format!("Content-Range: bytes {first}-{}/{length}", length - 1)), "{head}");
        assert!(part == whole[first..], "{range}");
    }
    // A client that has all of it learns so.
    let (head, part) = ask(&format!("Range: bytes={length}-\r\n")).await;
    assert!(
        head.starts_with("HTTP/1.1 416 ") && head.contains(&format!("Content-Range: bytes */{length}")),
        "{head}"
    );
    assert_eq!(part, b"");
    // Several parts, and other units, are the whole.
    for range in ["bytes=0-1,5-6", "items=0-1"] {
        let (head, all) = ask(&format!("Range: {range}\r\nx-ms-range: bytes=0-3\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && all == whole, "{head}");
        let asked = world.origin.requests().pop().expect("one").to_ascii_lowercase();
        assert!(!asked.contains("range"), "{asked}");
    }
    world.stop().await;
}

/// A server that gives out another part than was asked for gives none.
#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    for answer in [
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-8/100\r\nContent-Length: 4\r\n\r\npart",
        "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 4\r\n\r\npart",
    ] {
        for range in ["", "Range: bytes=5-8\r\n"] {
            let world = World::start(move |_| answer.as_bytes().to_vec()).await;
            let told = world.ask("api.test", world.get("api.test", range)).await;
            assert!(told.starts_with("HTTP/1.1 502 ") && told.contains("egress.answer-part"), "{told}");
            world.stop().await;
        }
    }
}

/// A packed file goes on byte for byte, or not at all where a secret is in it.
#[tokio::test]
async fn packed_content_is_looked_into() {
    let pack = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(bytes).and_then(|()| writer.finish()).expect("written")
    };
    for (content, passes) in [(pack(&file()[..15_000]), true), (pack(&file()), false)] {
        let served = content.clone();
        let world = World::start(move |_| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nContent-Length: {}\r\n\r\n",
                served.len()
            );
            [head.as_bytes(), &served].concat()
        })
        .await;
        let mut stream = world.opened(&world.door("acme"), "api.test").await;
        stream.write_all(world.get("api.test", "").as_bytes()).await.expect("sent");
        let mut told = Vec::new();
        let end = stream.read_to_end(&mut told).await;
        assert_eq!((end.is_ok(), told.ends_with(&content)), (passes, passes));
        if !passes {
            let closes = || world.records().into_iter().filter(|it| it["reason"] == "answer-holds-secret");
            palisade_testkit::wait_for("a record", || async { closes().next() }).await;
        }
        world.stop().await;
    }
}

/// HTTP/1.0, odd capitals, raw UTF-8: what has one reading is asked of a managed host, too.
#[tokio::test]
async fn ordinary_forms_are_taken() {
    let world = World::start(|_| ok("hi")).await;
    let port = world.origin.port();
    for request in [
        "GET /x HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET /x HTTP/1.0\r\nHost: api.test:{port}\r\n\r\n"),
        format!(
            "POST /x HTTP/1.1\r\nHost: api.test:{port}\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        ),
        format!(
            "GET /x\u{e9} HTTP/1.1\r\nHost: api.test:{port}\r\nX-Name: J\u{f6}rg\r\nConnection: close\r\n\r\n"
        ),
    ] {
        let answer = world.ask("api.test", &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hi"), "{request}: {answer}");
        let asked = world.origin.requests().pop().expect("one");
        assert!(
            asked.contains(&format!(" HTTP/1.1\r\nHost: api.test:{port}\r\n")) && asked.contains(SECRET),
            "{asked}"
        );
    }
    world.stop().await;
}

/// A host sends back what was stored there with another credential of its, or with what that was before.
#[tokio::test]
async fn every_secret_of_the_host_is_looked_for() {
    let world = World::start(|_| {
        ok(&format!("{{\"a\":\"{SECOND_SECRET}\",\"b\":\"{OLD_SECRET}\",\"c\":\"{SECRET}\"}}"))
    })
    .await;
    let answer = world.ask("api.test", world.get("api.test", "")).await;
    let asked = world.origin.requests().pop().expect("one");
    assert!(asked.contains(SECRET) && !asked.contains(SECOND_SECRET), "the first one goes along: {asked}");
    assert!(
        answer.contains(
            "{\"a\":\"[redacted:second]***\",\"b\":\"[redacted:second]*\",\"c\":\"[redacted:thing]"
        ),
        "{answer}"
    );
    world.stop().await;
}

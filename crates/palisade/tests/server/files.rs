//! The file API (contract §5) over HTTP. What lies beneath is tested in its own room.

use palisade_testkit::Server;
use reqwest::{Method, Response};
use serde_json::json;

use crate::start;

async fn session(server: &Server) -> String {
    format!("/v1/sessions/{}/files", server.session(json!({})).await)
}

async fn get(server: &Server, path: &str, header: (&str, &str)) -> Response {
    server.request(Method::GET, path).header(header.0, header.1).send().await.unwrap()
}

#[tokio::test]
async fn put_get_list_delete() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    let written =
        server.request(Method::PUT, &format!("{files}/output/a%20b.txt")).body("hello").send().await.unwrap();
    assert_eq!(written.status(), 201);
    let written: serde_json::Value = written.json().await.unwrap();
    assert_eq!((&written["path"], &written["size"]), (&json!("output/a b.txt"), &json!(5)));
    let listed = server.get(&format!("{files}?path=output")).await;
    assert_eq!(listed[0]["name"], "a b.txt");
    assert_eq!(listed[0]["type"], "file");
    assert_eq!(listed[0]["size"], 5);
    assert_eq!(server.get(&format!("{files}/output")).await, listed, "a directory gives its listing");
    let read = server.request(Method::GET, &format!("{files}/output/a%20b.txt")).send().await.unwrap();
    assert_eq!(read.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(read.text().await.unwrap(), "hello");
    let folder = format!("{files}/output");
    assert_eq!(
        server.refused(server.request(Method::DELETE, &folder)).await,
        (409, "directory.not_empty".into())
    );
    let file = format!("{files}/output/a%20b.txt");
    assert_eq!(server.request(Method::DELETE, &file).send().await.unwrap().status(), 204);
    assert_eq!(server.refused(server.request(Method::DELETE, &file)).await.0, 404);
    assert_eq!(server.request(Method::DELETE, &folder).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn ranges_tags_and_heads() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    let file = format!("{files}/digits");
    server.json(server.request(Method::PUT, &file).body("0123456789")).await;
    let whole = get(&server, &file, ("accept", "*/*")).await;
    let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
    for (range, status, body) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=0-99", 206, "0123456789"),
        ("lines=1-2", 200, "0123456789"),
        ("bytes=0-1,4-5", 200, "0123456789"),
        ("bytes=0-4,2-6", 200, "0123456789"),
        ("bytes=0-1,99-", 200, "0123456789"),
    ] {
        let answer = get(&server, &file, ("range", range)).await;
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(answer.text().await.unwrap(), body, "{range}");
    }
    assert_eq!(get(&server, &file, ("range", "bytes=2-4")).await.headers()["content-range"], "bytes 2-4/10");
    for range in ["bytes=10-", "bytes=5-2"] {
        let request = server.request(Method::GET, &file).header("range", range);
        assert_eq!(server.refused(request).await.0, 416, "{range}");
    }
    assert_eq!(get(&server, &file, ("if-none-match", &etag)).await.status(), 304);
    assert_eq!(get(&server, &file, ("if-none-match", "\"other\"")).await.status(), 200);
    let weak = format!("W/{etag}");
    for known in [&weak, &format!("\"other\", {weak}"), "*"] {
        assert_eq!(get(&server, &file, ("if-none-match", known)).await.status(), 304, "{known}");
    }
    for (tag, status) in [(&*etag, 206), ("\"other\"", 200), (&weak, 200), ("*", 200)] {
        let request = server.request(Method::GET, &file).header("range", "bytes=2-4").header("if-range", tag);
        assert_eq!(request.send().await.unwrap().status(), status, "{tag}");
    }
    let head = server.request(Method::HEAD, &file).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "10");
    let ranged = server.request(Method::HEAD, &file).header("range", "bytes=2-4").send().await.unwrap();
    assert_eq!(
        (ranged.status().as_u16(), &ranged.headers()["content-length"]),
        (200, &"10".parse().unwrap())
    );
    assert_eq!(head.text().await.unwrap(), "");
}

fn header<'r>(answer: &'r Response, name: &str) -> &'r str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_edges_of_ranges() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    server.json(server.request(Method::PUT, &format!("{files}/empty")).body("")).await;
    server.json(server.request(Method::PUT, &format!("{files}/kilo")).body(vec![b'x'; 1024])).await;
    for (name, range, status, content_range, length) in [
        ("empty", "bytes=0-", 416, "bytes */0", None),
        ("empty", "bytes=-5", 200, "", Some(0)),
        ("kilo", "bytes=-5000", 206, "bytes 0-1023/1024", Some(1024)),
        ("kilo", "bytes=0-99999999999999999999999", 206, "bytes 0-1023/1024", Some(1024)),
        ("kilo", "bytes=99999999999999999999999-", 416, "bytes */1024", None),
        ("kilo", "bytes=1024-", 416, "bytes */1024", None),
        ("kilo", "bytes=-0", 416, "bytes */1024", None),
        ("kilo", "bytes=1000-2,", 416, "bytes */1024", None),
        ("kilo", "bytes=2000-,3000-", 416, "bytes */1024", None),
        ("kilo", "bytes=0-1,2-3", 200, "", Some(1024)),
    ] {
        let answer = get(&server, &format!("{files}/{name}"), ("range", range)).await;
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "content-range")),
            (status, content_range),
            "{range} of {name}"
        );
        let body = answer.bytes().await.unwrap();
        assert!(length.is_none_or(|length| body.len() == length), "{range} of {name}: {} bytes", body.len());
    }
}

/// What a stale copy would overwrite or delete stays; what a reader has is not sent again.
#[tokio::test]
async fn conditions_hold_for_every_method() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    let file = format!("{files}/file");
    let put = |body: &'static str| server.request(Method::PUT, &file).body(body);
    let first = put("one").send().await.unwrap();
    let stale = header(&first, "etag").to_owned();
    let second = put("two").send().await.unwrap();
    assert_eq!(second.status(), 201);
    let (tag, date) = (header(&second, "etag").to_owned(), header(&second, "last-modified").to_owned());
    assert!(tag.starts_with('"') && tag != stale, "what the API wrote has a strong tag at once: {tag}");
    let read = get(&server, &file, ("accept", "*/*")).await;
    assert_eq!((header(&read, "etag"), header(&read, "last-modified")), (&*tag, &*date));
    assert_eq!(header(&read, "cache-control"), "private, no-cache");
    let (weak, long_ago, bad) = (format!("W/{tag}"), "Sun, 06 Nov 1994 08:49:37 GMT", "yesterday");
    let (list, bare) = (format!("\"x\", {tag}"), tag.trim_matches('"').to_owned());
    let missing = format!("{files}/missing");
    for (method, path, name, value, status) in [
        ("GET", &file, "if-match", &*tag, 200),
        ("GET", &file, "if-match", &stale, 412),
        ("HEAD", &file, "if-match", &stale, 412),
        ("GET", &missing, "if-match", "*", 404),
        ("GET", &file, "if-none-match", &weak, 304),
        ("HEAD", &file, "if-none-match", &list, 304),
        ("GET", &file, "if-none-match", &stale, 200),
        ("GET", &file, "if-modified-since", &date, 304),
        ("HEAD", &file, "if-modified-since", &date, 304),
        ("GET", &file, "if-modified-since", long_ago, 200),
        ("GET", &file, "if-modified-since", bad, 200),
        ("GET", &file, "if-unmodified-since", &date, 200),
        ("GET", &file, "if-unmodified-since", long_ago, 412),
        ("GET", &file, "if-match", "\"open", 400),
        ("PUT", &file, "if-match", &stale, 412),
        ("PUT", &file, "if-match", &weak, 412),
        ("PUT", &file, "if-match", "\"open", 400),
        ("PUT", &file, "if-none-match", "*", 412),
        ("PUT", &file, "if-none-match", &weak, 412),
        ("PUT", &file, "if-unmodified-since", long_ago, 412),
        ("PUT", &missing, "if-match", "*", 412),
        ("PUT", &missing, "if-match", &tag, 412),
        ("DELETE", &file, "if-match", &stale, 412),
        ("DELETE", &file, "if-none-match", "*", 412),
        ("DELETE", &file, "if-unmodified-since", long_ago, 412),
        ("DELETE", &missing, "if-match", "*", 404),
        ("DELETE", &files, "if-match", &tag, 405),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = server.request(method.clone(), path).header(name, value).body("lost");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path} {name}: {value}");
        let has_tag = header(&answer, "etag") == tag;
        assert!(has_tag || !matches!(status, 200 | 304), "{method} {name}: {value}");
        let still = get(&server, &file, ("accept", "*/*")).await;
        assert_eq!(still.text().await.unwrap(), "two", "{method} {name}: {value}");
    }
    assert_eq!(get(&server, &missing, ("accept", "*/*")).await.status(), 404, "nothing was made");
    let both = server
        .request(Method::GET, &file)
        .header("if-none-match", "\"x\"")
        .header("if-modified-since", &date);
    assert_eq!(both.send().await.unwrap().status(), 200, "the tag counts, and the date does not");
    let part = server.request(Method::GET, &file).header("range", "bytes=0-0").header("if-range", long_ago);
    assert_eq!(part.send().await.unwrap().status(), 200);
    let refused = put("lost").header("if-match", &stale).send().await.unwrap().text().await.unwrap();
    assert!(refused.contains("file.precondition_failed") && refused.contains(bare.as_str()), "{refused}");
    let third = put("three").header("if-match", &list).send().await.unwrap();
    assert_eq!(third.status(), 201);
    assert_eq!(
        put("four")
            .header("if-unmodified-since", header(&third, "last-modified"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
            / 100,
        2
    );
    let new = server.request(Method::PUT, &missing).header("if-none-match", "*").body("new");
    assert_eq!(new.send().await.unwrap().status(), 201);
    let last = server.request(Method::DELETE, &missing).header("if-match", "*").send().await.unwrap();
    assert_eq!(last.status(), 204);
}

#[tokio::test]
async fn of_many_writers_with_the_same_condition_one_wins() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    let file = format!("{files}/deep/file");
    for (name, value) in [("if-none-match", "*".to_owned()), ("if-match", String::new())] {
        let tag = header(&server.request(Method::HEAD, &file).send().await.unwrap(), "etag").to_owned();
        let value = if value.is_empty() { tag } else { value };
        let put = |number: usize| {
            let request =
                server.request(Method::PUT, &file).header(name, &value).body(format!("{name} {number}"));
            async move { (number, request.send().await.unwrap().status().as_u16()) }
        };
        let answers = futures_util::future::join_all((0..8).map(put)).await;
        let won: Vec<_> = answers.iter().filter(|(_, status)| *status == 201).collect();
        assert!(
            won.len() == 1 && answers.iter().all(|(_, status)| matches!(status, 201 | 412)),
            "{name}: {answers:?}"
        );
        let text = get(&server, &file, ("accept", "*/*")).await.text().await.unwrap();
        assert_eq!(text, format!("{name} {}", won[0].0));
    }
}

/// What would become the file, and is not what the client means by it.
#[tokio::test]
async fn a_part_of_a_file_a_packed_one_or_a_folder_is_not_written() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    server.json(server.request(Method::PUT, &format!("{files}/file")).body("whole")).await;
    for (path, name, value, status, code) in [
        ("file", "content-range", "bytes 2-4/10", 400, "upload.partial"),
        ("file", "content-range", "nonsense", 400, "upload.partial"),
        ("file", "content-encoding", "gzip", 415, "request.content_encoding"),
        ("file", "content-encoding", "identity, br", 415, "request.content_encoding"),
        ("folder/", "accept", "*/*", 400, "path.names_a_folder"),
        ("folder%2F", "accept", "*/*", 400, "path.names_a_folder"),
        ("", "accept", "*/*", 405, "endpoint.method_not_allowed"),
    ] {
        let request =
            server.request(Method::PUT, &format!("{files}/{path}")).header(name, value).body("part");
        assert_eq!(server.refused(request).await, (status, code.to_owned()), "{path} {name}: {value}");
    }
    assert_eq!(
        get(&server, &format!("{files}/file"), ("accept", "*/*")).await.text().await.unwrap(),
        "whole"
    );
    assert_eq!(get(&server, &format!("{files}/folder"), ("accept", "*/*")).await.status(), 404);
    let identity =
        server.request(Method::PUT, &format!("{files}/file")).header("content-encoding", "Identity");
    assert_eq!(identity.body("new").send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn an_upload_over_the_limit_changes_nothing() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    let file = format!("{files}/big");
    server.json(server.request(Method::PUT, &file).body("small")).await;
    // Announced, and not announced.
    let announced = server.request(Method::PUT, &file).body(vec![b'x'; 1024 * 1024 + 1]);
    assert_eq!(server.refused(announced).await, (413, "upload.too_large".into()));
    let chunks = futures_util::stream::iter((0..17).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024])));
    let streamed = server.request(Method::PUT, &file).body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(server.refused(streamed).await, (413, "upload.too_large".into()));
    assert_eq!(get(&server, &file, ("accept", "*/*")).await.text().await.unwrap(), "small");
    let exactly = server.request(Method::PUT, &file).body(vec![b'x'; 1024 * 1024]);
    assert_eq!(server.json(exactly).await["size"], 1024 * 1024);
    let names = server.get(&files).await;
    assert!(
        names
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| !entry["name"].as_str().unwrap().starts_with(".palisade"))
    );
}

#[tokio::test]
async fn a_folder_comes_as_a_zip() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    for name in ["deck/a.txt", "deck/sub/b.txt"] {
        server.json(server.request(Method::PUT, &format!("{files}/{name}")).body(name.to_owned())).await;
    }
    for (path, name) in [
        ("/deck?archive=zip", "sub/b.txt"),
        ("?path=deck&archive=zip", "sub/b.txt"),
        ("/?archive=zip", "deck/sub/b.txt"),
        ("?archive=zip", "deck/sub/b.txt"),
    ] {
        let answer = get(&server, &format!("{files}{path}"), ("accept", "*/*")).await;
        assert_eq!(answer.headers()["content-type"], "application/zip", "{path}");
        let head = server.request(Method::HEAD, &format!("{files}{path}")).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers().get("content-length")), (200, None), "{path}");
        let bytes = answer.bytes().await.unwrap();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut archive.by_name(name).unwrap(), &mut text).unwrap();
        assert_eq!(text, "deck/sub/b.txt", "{path}");
    }
    assert_eq!(
        server.refused(server.request(Method::GET, &format!("{files}/deck?archive=rar"))).await.0,
        400
    );
}

#[tokio::test]
async fn what_a_browser_would_run_comes_as_an_attachment() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    for (name, attached) in [
        ("a.html", true),
        ("b.svg", true),
        ("d.xsl", true),
        ("e.rss", true),
        ("f.xht", true),
        ("c.txt", false),
    ] {
        server
            .json(server.request(Method::PUT, &format!("{files}/{name}")).body("<script>alert(1)</script>"))
            .await;
        let answer = get(&server, &format!("{files}/{name}"), ("accept", "*/*")).await;
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let disposition =
            answer.headers().get("content-disposition").map(|it| it.to_str().unwrap().to_owned());
        let expected =
            format!("attachment; filename=\"{name}\"; filename*=UTF-8''{}", name.replace('.', "%2E"));
        assert_eq!(disposition, attached.then_some(expected), "{name}");
        let policy =
            answer.headers().get("content-security-policy").map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(policy.as_deref(), attached.then_some("sandbox; default-src 'none'"), "{name}");
    }
}

#[tokio::test]
async fn a_folder_is_asked_for_by_its_bytes() {
    let (server, _upstream) = start().await;
    let files = session(&server).await;
    for (folder, asked) in [("a%20%2B", "a+%2B"), ("n%ff", "n%FF"), ("%C3%A4", "%c3%a4")] {
        server.json(server.request(Method::PUT, &format!("{files}/{folder}/in")).body("x")).await;
        let listed = server.get(&format!("{files}?path={asked}")).await;
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &json!("in")), "{asked}");
    }
    for (query, status) in [("path=%zz", 400), ("path=a&path=b", 400), ("path=../x", 403), ("path=%00", 400)]
    {
        let request = server.request(Method::GET, &format!("{files}?{query}"));
        assert_eq!(server.refused(request).await.0, status, "{query}");
    }
}

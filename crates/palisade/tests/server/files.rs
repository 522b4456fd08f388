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
        assert_eq!(disposition.is_some_and(|it| it.starts_with("attachment;")), attached, "{name}");
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

//! The one way out as it is inside: a listener that the sandbox cannot touch, and a certificate authority of its own (cases C06,
//! C07, C10, EG-B8). Here the other side is a stand-in that answers with a name; the proxy's own tests are the egress room's.

use palisade_sandbox::{ProxySpec, Sandbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Bench, python, refused, stdout};

/// A sandbox with a proxy, and the server's side of it.
async fn with_proxy(bench: &Bench, proxy: ProxySpec) -> (Sandbox, TcpListener) {
    let mut spec = bench.spec(&[""], &[""]);
    spec.proxy = Some(proxy);
    let sandbox = bench.factory.start(spec).await.unwrap();
    let listener = TcpListener::from_std(sandbox.take_listener().unwrap()).unwrap();
    assert!(sandbox.take_listener().is_none());
    (sandbox, listener)
}

/// Answers every connection with this, whatever it says.
fn answer_with(listener: TcpListener, word: &'static str) -> tokio::task::JoinHandle<()> {
    tokio::runtime::Handle::current().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let body = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{word}",
                word.len()
            );
            let _ = stream.write_all(body.as_bytes()).await;
        }
    })
}

#[tokio::test]
async fn c06_c08_each_sandbox_reaches_its_own_proxy() {
    let bench = Bench::new();
    let (one, first) = with_proxy(&bench, ProxySpec::default()).await;
    let (other, second) = with_proxy(&bench, ProxySpec::default()).await;
    let (_first, _second) = (answer_with(first, "first"), answer_with(second, "second"));
    let ask = "curl -sS --max-time 20 http://anything.example/";
    assert_eq!(stdout(&one, ask).await, "first");
    assert_eq!(stdout(&other, ask).await, "second");
    // Told by the environment alone, in both cases of its letters.
    let names = "env | grep -i _proxy | cut -d= -f1 | LC_ALL=C sort | tr '\\n' ' '";
    assert_eq!(
        stdout(&one, names).await,
        "ALL_PROXY HTTPS_PROXY HTTP_PROXY NODE_USE_ENV_PROXY NO_PROXY all_proxy http_proxy https_proxy no_proxy"
    );
    assert_eq!(stdout(&one, "echo $NO_PROXY").await, "localhost,127.0.0.1,127.0.0.0/8,::1,0.0.0.0,palisade");
}

/// EG-B8: there is no other way.
#[tokio::test]
async fn c11_without_the_environment_nothing_leaves() {
    let bench = Bench::new();
    let (sandbox, listener) = with_proxy(&bench, ProxySpec::default()).await;
    let _served = answer_with(listener, "through");
    for direct in [
        "env -u http_proxy -u HTTP_PROXY -u ALL_PROXY -u all_proxy curl -sS --max-time 20 http://192.0.2.1/",
        "curl -sS --noproxy '*' --max-time 20 http://192.0.2.1/",
    ] {
        refused(&sandbox, direct, "Couldn't connect").await;
    }
    assert_eq!(stdout(&sandbox, "curl -sS --max-time 20 http://192.0.2.1/").await, "through");
}

#[tokio::test]
async fn c07_nobody_inside_takes_the_proxys_place() {
    let bench = Bench::new();
    let (sandbox, listener) = with_proxy(&bench, ProxySpec::default()).await;
    let _served = answer_with(listener, "mine");
    let bind = "import socket\n\
                for address in ('127.0.0.1', '0.0.0.0'):\n\
                \x20   s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
                \x20   try: s.bind((address, 3128)); s.listen(); print('taken')\n\
                \x20   except OSError as error: print(error.strerror)";
    assert_eq!(python(&sandbox, bind).await, "Address already in use\nAddress already in use");
    // There is no process inside that holds it.
    let held = "for f in /proc/[0-9]*/fd/*; do readlink $f 2>/dev/null; done | grep -c socket || true";
    assert_eq!(stdout(&sandbox, held).await, "0");
    stdout(&sandbox, "kill -9 -1 2>/dev/null; true").await;
    assert_eq!(stdout(&sandbox, "curl -sS --max-time 20 http://x.example/").await, "mine");
}

#[tokio::test]
async fn c10_without_the_proxy_there_is_no_way_out() {
    let bench = Bench::new();
    let (sandbox, listener) = with_proxy(&bench, ProxySpec::default()).await;
    drop(listener);
    refused(&sandbox, "curl -sS --max-time 20 http://192.0.2.1/", "Couldn't connect").await;
    // Nor is there one for a sandbox that was given none.
    let bare = bench.whole().await;
    assert!(bare.take_listener().is_none());
    refused(
        &bare,
        "curl -sS --max-time 20 --proxy http://127.0.0.1:3128 http://192.0.2.1/",
        "Couldn't connect",
    )
    .await;
}

#[tokio::test]
async fn an_authority_of_its_own_stands_behind_the_systems() {
    let bench = Bench::new();
    let anchor = "-----BEGIN CERTIFICATE-----\nthe-sandbox's-own\n-----END CERTIFICATE-----\n";
    let (sandbox, _listener) = with_proxy(&bench, ProxySpec { trust_anchor: Some(anchor.into()) }).await;
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    assert_eq!(stdout(&sandbox, &format!("tail -n 3 {bundle}")).await, anchor.trim_end());
    let theirs = std::fs::read_to_string(bundle).unwrap_or_default();
    assert_eq!(stdout(&sandbox, &format!("cat {bundle}")).await, format!("{theirs}{anchor}").trim_end());
    assert_eq!(
        stdout(&sandbox, "echo $SSL_CERT_FILE $REQUESTS_CA_BUNDLE").await,
        format!("{bundle} {bundle}")
    );
    refused(&sandbox, &format!("echo more >> {bundle}"), "Read-only file system").await;
    // Nobody else trusts it, and where there is none nothing is said.
    let (other, _listener) = with_proxy(&bench, ProxySpec::default()).await;
    assert_eq!(stdout(&other, &format!("grep -c sandbox {bundle} || true")).await, "0");
    assert_eq!(stdout(&other, "echo \"[$SSL_CERT_FILE]\"").await, "[]");
}

/// The server's side refuses nobody and answers nobody: what went there would not come back.
#[tokio::test]
async fn the_sandboxs_own_addresses_are_direct() {
    let clients = clients_for_python();
    let bench = Bench::new();
    let mut spec = bench.spec(&[""], &[""]);
    spec.proxy = Some(ProxySpec::default());
    let factory = match &clients {
        Some(clients) => bench.factory_with_packages(clients.path()),
        None => bench.factory.clone(),
    };
    let sandbox = factory.start(spec).await.unwrap();
    let listener = TcpListener::from_std(sandbox.take_listener().unwrap()).unwrap();
    let _served = answer_with(listener, "through the door");
    for (address, port) in [("0.0.0.0", 8000), ("::", 8001)] {
        let command = format!("exec python3 -m http.server {port} --bind {address} --directory served");
        let request = palisade_sandbox::RunRequest { command, timeout_ms: 0, background: true };
        sandbox.run(request, |_| {}).await.unwrap();
    }
    bench.put("served/index.html", "direct");
    let up = "for port in 8000 8001; do until (exec 3<>/dev/tcp/localhost/$port) 2>/dev/null; do sleep 0.05; done; done";
    stdout(&sandbox, up).await;
    let urls = [
        "http://0.0.0.0:8000/",
        "http://127.0.0.1:8000/",
        "http://localhost:8000/",
        "http://palisade:8000/",
        "http://[::1]:8001/",
    ];
    for url in urls {
        for fetch in ["curl -gsS --max-time 20", "wget -qO- --timeout=20"] {
            assert_eq!(stdout(&sandbox, &format!("{fetch} {url}")).await, "direct", "{fetch} {url}");
        }
        // Node takes `::1` in NO_PROXY for a port, and the form in brackets is nothing for httpx.
        if !url.contains('[') {
            let fetch = format!("node -e \"fetch('{url}').then(r => r.text()).then(t => console.log(t))\"");
            assert_eq!(stdout(&sandbox, &fetch).await, "direct", "node {url}");
        }
    }
    let program = format!(
        "urls = {urls:?}\nclients = {}\n{OWN_ADDRESSES}",
        if clients.is_some() { "True" } else { "False" }
    );
    assert_eq!(python(&sandbox, &program).await, "direct");
    // And everything else still takes the door.
    assert_eq!(stdout(&sandbox, "curl -sS --max-time 20 http://example.com/").await, "through the door");
    if clients.is_some() {
        let outside = "import asyncio, aiohttp\nasync def go():\n\
                       \x20   async with aiohttp.ClientSession() as s, s.get('http://example.com/') as r: print(await r.text())\n\
                       asyncio.run(go())";
        assert_eq!(python(&sandbox, outside).await, "through the door");
    }
}

/// Java takes no proxy from the environment.
#[tokio::test]
async fn java_finds_the_door() {
    let bench = Bench::new();
    let (sandbox, listener) = with_proxy(&bench, ProxySpec::default()).await;
    if stdout(&sandbox, "java --list-modules 2>/dev/null | grep jdk.compiler || true").await.is_empty() {
        println!("SKIPPED: there is no JDK");
        return;
    }
    let _served = answer_with(listener, "through the door");
    let program =
        "import java.net.*; public class Fetch { public static void main(String[] a) throws Exception {
        System.out.print(new String(URI.create(a[0]).toURL().openStream().readAllBytes())); } }";
    bench.put("Fetch.java", program);
    assert_eq!(stdout(&sandbox, "java Fetch.java http://example.com/").await, "through the door");
}

/// Each client says the same of each address.
const OWN_ADDRESSES: &str = "import asyncio, urllib.request
said = {urllib.request.urlopen(url, timeout=20).read().decode() for url in urls}
if clients:
    import aiohttp, httpx, requests
    said |= {requests.get(url, timeout=20).text for url in urls} | {httpx.get(url, timeout=20).text for url in urls}
    async def ask(url):
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text()
    said |= {asyncio.run(ask(url)) for url in urls}
print(' '.join(said).strip())";

/// A copy where the sandbox's uid can look, made while the test may still read it.
fn clients_for_python() -> Option<tempfile::TempDir> {
    let installed =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testing/python-clients");
    if !installed.join("aiohttp").is_dir() {
        println!(
            "SKIPPED in part: requests, httpx and aiohttp are not installed; `cargo xtask test` does that"
        );
        return None;
    }
    let copy = tempfile::Builder::new().prefix("palisade-clients-").tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-r", "--"])
        .arg(installed.join("."))
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    let open = std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(copy.path()).status();
    assert!(open.unwrap().success());
    Some(copy)
}

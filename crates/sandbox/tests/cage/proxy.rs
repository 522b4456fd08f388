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

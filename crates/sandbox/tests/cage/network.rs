//! The network inside is empty (cases C, B17).

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::support::{Bench, python, refused, stdout};

#[tokio::test]
async fn c01_c02_c03_there_is_only_an_empty_loopback() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let interfaces = stdout(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
    assert_eq!(interfaces, "lo");
    refused(&sandbox, &format!("exec 5<>/dev/tcp/127.0.0.1/{port}"), "Connection refused").await;
    for outside in ["192.0.2.1/80", "169.254.169.254/80", "10.0.0.1/80"] {
        refused(&sandbox, &format!("exec 5<>/dev/tcp/{outside}"), "Network is unreachable").await;
    }
}

#[tokio::test]
async fn c04_names_fail_fast() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let program = "import socket, time\nstart = time.time()\n\
                   try: socket.getaddrinfo('palisade.example', 80)\n\
                   except socket.gaierror: print(time.time() - start < 5)";
    assert_eq!(python(&sandbox, program).await, "True");
    assert_eq!(
        python(&sandbox, "import socket; print(socket.gethostbyname('localhost'))").await,
        "127.0.0.1"
    );
}

#[tokio::test]
async fn b17_abstract_sockets_of_the_host_and_of_others_are_out_of_reach() {
    let bench = Bench::new();
    let (one, other) = (bench.whole().await, bench.whole().await);
    let name = format!("palisade-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let program = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\n\
         try: s.connect('\\0{name}')\nexcept ConnectionRefusedError: print('refused')"
    );
    assert_eq!(python(&one, &program).await, "refused");
    assert_eq!(python(&other, &program).await, "refused");
}

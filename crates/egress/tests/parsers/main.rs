//! Whatever a client sends is read in one way or refused; the fuzz target runs the same check.

#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

mod check;
mod scrubbing;

use proptest::prelude::*;

#[test]
fn heads_and_hosts_that_are_read() {
    for bytes in [
        &b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\n"[..],
        b"GET http://Allowed.TEST.:8080/x?y HTTP/1.1\r\nHost: allowed.test:8080\r\n\r\n",
        b"xn--bcher-kva.test",
        b"[2001:db8::1]:443",
        b"0x7f.1:80",
    ] {
        check::check(bytes);
    }
    let head = b"GET http://Allowed.TEST.:8080/x HTTP/1.1\r\nHost: allowed.test:8080\r\n\r\n";
    let read = palisade_egress::read_destination(head).expect("a request");
    assert_eq!(read.to_string(), "allowed.test:8080");
    palisade_egress::read_destination(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect_err("not to a proxy");
}

proptest! {
    #[test]
    fn any_answer(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x20_u8..0x7f], 0..300)) {
        scrubbing::check(&bytes);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check::check(&bytes);
    }

    #[test]
    fn nearly_requests(
        method in "(CONNECT|GET|POST) ",
        target in "(http://)?([a-zA-Z0-9.\\-\\[\\]:%@]|xn--){0,24}(:[0-9]{0,5})?(/[!-~]{0,5})?",
        fields in "(Host: [a-z.:0-9]{0,9}\r\n|[A-Za-z-]{1,9}: [ -~]{0,9}\r?\n){0,3}",
    ) {
        check::check(target.as_bytes());
        check::check(format!("{method}{target} HTTP/1.1\r\n{fields}\r\n").as_bytes());
    }
}

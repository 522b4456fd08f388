//! The questions of one look-up by datagram, from a port that is theirs alone. It must never take an answer to what was not asked.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, Query},
    rr::{Name, RecordType},
};
use tokio::{net::UdpSocket, time::sleep};

/// What no answer without extensions exceeds (RFC 1035, 2.3.4).
const DATAGRAM_BYTES_MAX: usize = 512;

/// What was answered within `patience`, which is half over when what was not answered is asked once more. None: nothing was.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    kinds: [RecordType; 2],
    patience: Duration,
) -> io::Result<Vec<Message>> {
    let mut open = kinds.map(|kind| question(name, kind)).to_vec();
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The kernel drops what comes from anybody else.
    socket.connect(server).await?;
    let mut answers = Vec::with_capacity(open.len());
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    for _ in 0..2 {
        for question in &open {
            socket.send(&question.to_vec().map_err(io::Error::other)?).await?;
        }
        let mut over = pin!(sleep(patience / 2));
        while !open.is_empty() {
            let length = tokio::select! {
                received = socket.recv(&mut datagram) => received?,
                () = over.as_mut() => break,
            };
            let Ok(answer) = Message::from_vec(&datagram[..length]) else { continue };
            if let Some(at) = open.iter().position(|question| answers_to(question, &answer)) {
                open.swap_remove(at);
                answers.push(answer);
            }
        }
    }
    Ok(answers)
}

/// With a number that nobody can guess.
fn question(name: &Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.queries.push(Query::query(name.clone(), kind));
    message.metadata.recursion_desired = true;
    message
}

fn answers_to(question: &Message, answer: &Message) -> bool {
    answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries
}

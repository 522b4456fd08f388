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

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::{RData, Record, rdata::A};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(400);

    fn name() -> Name {
        Name::from_ascii("allowed.test.").expect("a name")
    }

    /// An answer to what was asked, with this address.
    fn answer(asked: &Message, last: u8) -> Message {
        let mut answer = asked.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.answers = vec![Record::from_rdata(name(), 0, RData::A(A::new(192, 0, 2, last)))];
        answer
    }

    /// What is asked of a server that says `says` to each question, and how many questions it saw.
    async fn asked(says: impl Fn(usize, &Message) -> Vec<Message>) -> (Vec<Message>, usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let server = socket.local_addr().expect("an address");
        let mut seen = 0;
        let serve = async {
            let mut datagram = [0; DATAGRAM_BYTES_MAX];
            loop {
                let (length, from) = socket.recv_from(&mut datagram).await.expect("a question");
                let question = Message::from_vec(&datagram[..length]).expect("a message");
                for message in says(seen, &question) {
                    socket.send_to(&message.to_vec().expect("bytes"), from).await.expect("sent");
                }
                seen += 1;
            }
        };
        let name = name();
        let answers = tokio::select! {
            answers = ask(server, &name, [RecordType::A, RecordType::AAAA], PATIENCE) => answers,
            () = serve => Ok(Vec::new()),
        };
        (answers.expect("no fault"), seen)
    }

    fn is_v4(question: &Message) -> bool {
        question.queries[0].query_type == RecordType::A
    }

    #[tokio::test]
    async fn a_lost_datagram_is_sent_once_more() {
        let (answers, seen) =
            asked(|at, question| if at < 2 { Vec::new() } else { vec![answer(question, 1)] }).await;
        assert_eq!((answers.len(), seen), (2, 4));
        let (answers, seen) = asked(|_, question| match is_v4(question) {
            true => vec![answer(question, 1)],
            false => Vec::new(),
        })
        .await;
        assert_eq!((answers.len(), seen), (1, 3), "the one that was answered is not asked again");
        let (answers, seen) = asked(|_, _| Vec::new()).await;
        assert_eq!((answers.len(), seen), (0, 4));
    }

    /// EG-C2: whoever guesses has to guess the number and the question as well as the port.
    #[tokio::test]
    async fn what_was_not_asked_is_not_an_answer() {
        let (answers, _) = asked(|_, question| {
            let mut other_number = answer(question, 66);
            other_number.metadata.id = question.metadata.id.wrapping_add(1);
            let mut other_name = answer(question, 67);
            other_name.queries[0].name = Name::from_ascii("evil.test.").expect("a name");
            let mut no_answer = answer(question, 68);
            no_answer.metadata.message_type = MessageType::Query;
            let mut nothing = answer(question, 69);
            nothing.queries.clear();
            vec![other_number, other_name, no_answer, nothing, answer(question, 1), answer(question, 70)]
        })
        .await;
        assert_eq!(answers.len(), 2);
        for answer in answers {
            assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
        }
    }
}

//! A fake name server on loopback: it answers what a test tells it, wrongly where it should, and keeps every question.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Long, so that a cache where there must be none is seen.
const TTL_S: u32 = 300;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
/// In a message's third byte.
const TRUNCATED: u8 = 0x02;

/// One record of an answer.
#[derive(Debug, Clone)]
pub enum Data {
    /// An A or AAAA record of the name that was asked for, or of the last alias.
    Address(IpAddr),
    /// An alias; what follows belongs to its target.
    Alias(String),
    /// A record of a name that nobody asked for.
    Stray(String, IpAddr),
}

/// How a name is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These records, of the type that was asked for.
    Records(Vec<Data>),
    /// The first of these to the first question of each type, then the next; the last stays.
    Changing(Vec<Vec<Data>>),
    /// No such name.
    Missing,
    /// Nothing at all.
    Silence,
    /// These records as if another name had been asked for.
    OtherQuestion(Vec<Data>),
    /// These records from another port, and nothing from the right one.
    OtherPort(Vec<Data>),
    /// Bytes that are no message.
    Garbage,
    /// These records over TCP; over UDP, that they do not fit.
    Truncated(Vec<Data>),
}

/// The name server. It stops when it is dropped.
pub struct FakeResolver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    replies: HashMap<String, Reply>,
    questions: Vec<(String, u16)>,
}

impl FakeResolver {
    /// Listens on a port of its own; knows no name yet.
    pub async fn start() -> std::io::Result<Self> {
        let (socket, listener) = both().await?;
        let other = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let state: Arc<Mutex<State>> = Arc::default();
        let (known, known_too) = (state.clone(), state.clone());
        let datagrams = async move {
            let mut buffer = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
                let Some((reply, from_other_port)) = answer(&known, &buffer[..count], false) else {
                    continue;
                };
                let from = if from_other_port { &other } else { &socket };
                // A question whose asker is gone needs no answer.
                let _ = from.send_to(&reply, peer).await;
            }
        };
        let connections = async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The same.
                let _ = answer_all(stream, &known_too).await;
            }
        };
        let serving = TaskTracker::new().spawn(async move {
            tokio::join!(datagrams, connections);
        });
        Ok(Self { address, state, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name is answered like this.
    pub fn set(&self, name: &str, reply: Reply) {
        self.with(|state| state.replies.insert(name.to_owned(), reply));
    }

    /// From now on the name has these addresses.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().filter_map(|address| address.parse().ok()).map(Data::Address);
        self.set(name, Reply::Records(addresses.collect()));
    }

    /// The names that were asked for, in order, as they stood in the question.
    pub fn questions(&self) -> Vec<String> {
        self.with(|state| state.questions.iter().map(|(name, _)| name.clone()).collect())
    }

    /// How often the A records of a name were asked for.
    pub fn times_asked(&self, name: &str) -> usize {
        self.with(|state| {
            state.questions.iter().filter(|(asked, kind)| asked == name && *kind == TYPE_A).count()
        })
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// One port for datagrams and for connections; the second may be taken.
async fn both() -> std::io::Result<(UdpSocket, TcpListener)> {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        match TcpListener::bind(socket.local_addr()?).await {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

/// Messages with their lengths in front, until the asker closes.
async fn answer_all(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        if let Some((reply, _)) = answer(state, &query, true) {
            stream.write_u16(u16::try_from(reply.len()).unwrap_or(u16::MAX)).await?;
            stream.write_all(&reply).await?;
        }
    }
}

/// The message to send, and whether from the wrong port.
fn answer(state: &Mutex<State>, query: &[u8], by_tcp: bool) -> Option<(Vec<u8>, bool)> {
    let (name, kind, question_end) = question(query)?;
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    state.questions.push((name.clone(), kind));
    let records = match state.replies.get(&name).cloned().unwrap_or(Reply::Missing) {
        Reply::Silence => return None,
        Reply::Garbage => return Some(([&query[..2], b"nonsense"].concat(), false)),
        Reply::Missing => return Some((message(query, &query[12..question_end], 3, &[]), false)),
        Reply::Truncated(_) if !by_tcp => {
            let mut reply = message(query, &query[12..question_end], 0, &[]);
            reply[2] |= TRUNCATED;
            return Some((reply, false));
        }
        Reply::Records(records) | Reply::Truncated(records) => records,
        Reply::Changing(steps) => {
            let asked = state.questions.iter().filter(|(asked, of)| *asked == name && *of == kind).count();
            steps[(asked - 1).min(steps.len() - 1)].clone()
        }
        Reply::OtherPort(records) => {
            let records = encode(&name, kind, &records);
            return Some((message(query, &query[12..question_end], 0, &records), true));
        }
        Reply::OtherQuestion(records) => {
            let other = [name_bytes("other.test"), query[question_end - 4..question_end].to_vec()].concat();
            return Some((message(query, &other, 0, &encode("other.test", kind, &records)), false));
        }
    };
    Some((message(query, &query[12..question_end], 0, &encode(&name, kind, &records)), false))
}

/// The name in the question, its type, and where it ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn name_bytes(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap_or(63);
        std::iter::once(length).chain(label.bytes())
    });
    labels.chain(std::iter::once(0)).collect()
}

fn encode(name: &str, kind: u16, records: &[Data]) -> Vec<Vec<u8>> {
    let mut owner = name.to_owned();
    let mut encoded = Vec::new();
    for data in records {
        let (record_owner, record_kind, content) = match data {
            Data::Alias(target) => {
                let record = (owner.clone(), TYPE_CNAME, name_bytes(target));
                owner.clone_from(target);
                record
            }
            Data::Address(address) => (owner.clone(), kind_of(*address), octets(*address)),
            Data::Stray(name, address) => (name.clone(), kind_of(*address), octets(*address)),
        };
        if record_kind != TYPE_CNAME && record_kind != kind {
            continue;
        }
        let length = u16::try_from(content.len()).unwrap_or(0).to_be_bytes();
        let kind = record_kind.to_be_bytes();
        encoded.push(
            [&name_bytes(&record_owner)[..], &kind, &[0, 1], &TTL_S.to_be_bytes(), &length, &content]
                .concat(),
        );
    }
    encoded
}

fn kind_of(address: IpAddr) -> u16 {
    if address.is_ipv4() { TYPE_A } else { TYPE_AAAA }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn message(query: &[u8], question: &[u8], code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap_or(0).to_be_bytes();
    let head = [query[0], query[1], 0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    [&head[..], question, &records.concat()].concat()
}

//! A request with an absolute target, or one within a tunnel that the proxy has opened: passed on in our words over a connection to its one
//! destination, its answer passed back in our words. One request at a time; what is left in the client's buffer is the next request, and
//! is judged as one.

use std::{
    pin::pin,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use palisade_protocol::{CredentialRule, limits::EGRESS_INTERIM_ANSWERS_MAX};

use super::{
    DoorState, Shared,
    connection::{Client, gone},
    meter::{Faults, Look, Meter, Passage, Window},
    open::{self, Kept, Opened, Way, open},
    tunnel,
};
use crate::{
    CredentialFault, Grant, Principal, Reason, Scheme, Stream,
    client::CREDENTIAL,
    http::{
        answer::{Answer, Question, parse_answer},
        chunked::{Chunks, Extensions, Step},
        head::{Body, Forward},
        part::{Cut, Wanted},
    },
    inject::{self, PlaceholderScan},
    scrub::{Scrubber, Wash},
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How an exchange ended.
enum Ended {
    /// The client has its whole answer.
    Answered { status: u16, keep: bool, keep_upstream: bool },
    /// It became a WebSocket, which is over.
    Upgraded(Reason),
    /// The client has heard nothing yet.
    Refused(Reason),
    /// The client has a part of its answer.
    Broken { status: u16, reason: Reason },
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Another request may follow.
    Next,
    /// It ends, and all was said.
    End,
    /// It ends in the middle of an answer.
    Cut,
}

/// Serves one request; what becomes of the connection comes back. `kept` is a connection that may serve it, and then one
/// that may serve the next.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    door: &Arc<DoorState>,
    client: &mut Client,
    mut request: Forward,
    kept: &mut Option<Kept>,
) -> After {
    request.destination = shared.policy.load().outward(&door.principal, request.destination);
    let (method, path) = (request.method.clone(), request.path.clone());
    let destination = request.destination.clone();
    let asked = open::Request { destination: &destination, method: &method, path: &path };
    let mut credential = None;
    let check = |grant: &Grant| {
        credential = check(&door.principal, &mut request, grant)?;
        Ok(credential.as_ref().map(Attached::name))
    };
    let Opened { upstream, address, way } = match open(shared, door, asked, kept.take(), check).await {
        Ok(opened) => opened,
        Err(reason) => {
            client.answer_refusal(reason).await;
            return After::End;
        }
    };
    let mut upstream = Client::new(upstream);
    let ended = tokio::select! {
        ended = exchange(shared, &way, &mut request, credential, client, &mut upstream) => ended,
        reason = way.ended() => Ended::Broken { status: 0, reason },
    };
    match ended {
        Ended::Answered { status, keep, keep_upstream } => {
            way.close(Reason::Done, Some(status)).await;
            if keep && keep_upstream {
                *kept = Some(Kept { upstream: upstream.stream, address, destination, since: Instant::now() });
            }
            if keep { After::Next } else { After::End }
        }
        Ended::Upgraded(reason) => {
            tunnel::end(reason, &client.stream, &upstream.stream);
            way.close(reason, Some(101)).await;
            if reason == Reason::Done { After::End } else { After::Cut }
        }
        Ended::Refused(reason) => {
            upstream.stream.reset_on_close();
            drop(upstream);
            way.close(reason, Some(reason.status())).await;
            client.answer_refusal(reason).await;
            After::End
        }
        // Within TLS the missing goodbye, and the missing end of the body, tell that this was not all; a reset would take back what was sent.
        Ended::Broken { status, reason } if client.stream.is_tls() && status != 0 => {
            upstream.stream.reset_on_close();
            way.close(reason, Some(status)).await;
            After::Cut
        }
        Ended::Broken { status, reason } => {
            tunnel::end(reason, &client.stream, &upstream.stream);
            way.close(reason, (status != 0).then_some(status)).await;
            After::Cut
        }
    }
}

/// What will be attached.
enum Attached {
    /// An upstream's key, to a call of the server's own.
    Key(Vec<u8>),
    /// A tenant's credential.
    Vault(Arc<CredentialRule>),
}

impl Attached {
    fn name(&self) -> String {
        match self {
            Self::Vault(rule) => rule.name.to_string(),
            Self::Key(name) => String::from_utf8_lossy(name).into_owned(),
        }
    }
}

/// What the request has to say for itself, before anything leaves; the client's own credentials are taken out of it.
fn check(principal: &Principal, request: &mut Forward, grant: &Grant) -> Result<Option<Attached>, Reason> {
    let is_name = |name: &str| name.eq_ignore_ascii_case(CREDENTIAL.as_str());
    let named = request.fields.iter().find(|(name, _)| is_name(name)).map(|(_, value)| value.clone());
    request.fields.retain(|(name, _)| !is_name(name));
    if !matches!(principal, Principal::Session { .. }) {
        return Ok(named.map(Attached::Key));
    }
    let credential = match grant.credentials.as_slice() {
        [] => None,
        credentials => Some(Attached::Vault(inject::empty_slots(request, credentials)?)),
    };
    if inject::mentions_placeholder(request) {
        return Err(Reason::PlaceholderMisplaced);
    }
    Ok(credential)
}

/// Attaches what there is to attach, and passes the request and its answer on.
async fn exchange(
    shared: &Shared,
    way: &Way,
    request: &mut Forward,
    credential: Option<Attached>,
    client: &mut Client,
    upstream: &mut Client,
) -> Ended {
    let cleared = match credential {
        None => None,
        Some(Attached::Key(name)) => match shared.credentials.load().bearer(&name) {
            Ok(value) => {
                request.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                request.fields.push(("Authorization".into(), value));
                None
            }
            Err(reason) => return Ended::Refused(reason),
        },
        Some(Attached::Vault(rule)) => match attach(shared, way, request, &rule).await {
            Ok(cleared) => Some(cleared),
            Err(reason) => return Ended::Refused(reason),
        },
    };
    let is_session = matches!(way.door.principal, Principal::Session { .. });
    let keeps_upstream = !request.websocket && (!is_session || request.destination.scheme == Scheme::Https);
    Exchange { shared, way, request, cleared, keeps_upstream, is_session }.run(client, upstream).await
}

/// Puts the credential into the request; what the answer has to be cleared of comes back.
async fn attach(
    shared: &Shared,
    way: &Way,
    request: &mut Forward,
    rule: &CredentialRule,
) -> Result<Cleared, Reason> {
    let Principal::Session { tenant, .. } = &way.door.principal else {
        return Err(Reason::CredentialMissing);
    };
    let of_the_host = way.grant.credentials.iter().map(|rule| rule.name.clone()).collect();
    let asking = async {
        let secret = shared.vault.secret(tenant, &rule.name).await?;
        // A host may send back what was stored there with another one.
        Ok::<_, CredentialFault>((secret, shared.vault.known(tenant, of_the_host).await?))
    };
    let told = tokio::time::timeout(shared.settings.answer_timeout, asking).await;
    let (secret, known) = told.map_err(|_| Reason::CredentialUnavailable)??;
    inject::attach(request, rule, &secret)?;
    let all = known.iter().map(|(name, secret)| (name, secret)).chain([(&rule.name, &secret)]);
    let scrubber = Scrubber::of(all);
    let part = Wanted::take(request, scrubber.form_bytes_max());
    Ok(Cleared { scrubber, part })
}

/// What an answer is cleared of, and the part of it that the client wants.
struct Cleared {
    scrubber: Scrubber,
    part: Option<Wanted>,
}

struct Exchange<'e> {
    shared: &'e Shared,
    way: &'e Way,
    request: &'e Forward,
    /// For a request with a credential of the vault.
    cleared: Option<Cleared>,
    /// Whether the connection to the upstream may take another request.
    keeps_upstream: bool,
    is_session: bool,
}

impl Exchange<'_> {
    async fn run(&self, client: &mut Client, upstream: &mut Client) -> Ended {
        if let Err(reason) = self.send_head(client, upstream).await {
            return Ended::Refused(reason);
        }
        let question = Question { head: self.request.method == "HEAD", websocket: self.request.websocket };
        let (mut answer, uploaded) = match self.exchange_until_answer(client, upstream, question).await {
            Ok(answered) => answered,
            Err(reason) => return Ended::Refused(reason),
        };
        let comes = answer.body;
        let mut look = match self.clear(&mut answer) {
            Ok(look) => look,
            Err(reason) => return Ended::Refused(reason),
        };
        self.frame(&mut answer, client);
        let status = answer.status;
        let broken = |reason| Ended::Broken { status, reason };
        let keep = uploaded && !self.request.close && answer.body != Body::ToEnd && status != 101;
        let down = self.meter(
            &upstream.stream,
            &client.stream,
            &self.way.traffic.down,
            self.shared.settings.idle_timeout,
        );
        if let Err(reason) = down.write(&answer.render(!keep), Reason::ClientBroke).await {
            return broken(reason);
        }
        if status == 101 {
            return match down.write(&upstream.buffer, Reason::ClientBroke).await {
                Ok(()) => {
                    Ended::Upgraded(tunnel::pass(self.shared, self.way, client, &upstream.stream).await)
                }
                Err(reason) => broken(reason),
            };
        }
        let faults = Faults {
            malformed: Reason::AnswerChunkMalformed,
            ended: Reason::AnswerTruncated,
            from: Reason::UpstreamBroke,
            to: Reason::ClientBroke,
        };
        // What is not passed on is not waited for.
        let comes_on = if answer.body == Body::None { Body::None } else { comes };
        let passage = Passage { comes: comes_on, goes: answer.body, extensions: Extensions::Dropped, faults };
        // A call that was cancelled must not go on costing.
        let copied = tokio::select! {
            copied = down.copy_body(&mut upstream.buffer, passage, &mut look) => copied,
            () = gone(&client.stream, &mut client.buffer), if uploaded && !self.is_session => Err(Reason::ClientBroke),
        };
        let keep_upstream = self.keeps_upstream
            && uploaded
            && !answer.close
            && comes != Body::ToEnd
            && comes == comes_on
            && upstream.buffer.is_empty();
        match copied {
            Ok(()) => Ended::Answered { status, keep, keep_upstream },
            Err(reason) => broken(reason),
        }
    }

    /// What an answer is looked through for. Its head is cleared here.
    fn clear(&self, answer: &mut Answer) -> Result<Look, Reason> {
        let Some(Cleared { scrubber, part }) = &self.cleared else { return Ok(Look::Nowhere) };
        let content_type = answer.field("content-type").unwrap_or_default();
        let wash =
            Wash::new(&answer.codings(), content_type, scrubber.clone()).ok_or(Reason::AnswerCoding)?;
        let content_range = answer.field("content-range").unwrap_or_default().to_vec();
        answer.clear(&wash);
        let window = match (answer.status, part) {
            (206, Some(_)) if wash.undoes_a_coding() => return Err(Reason::AnswerCoding),
            (206, Some(part)) => match part.cut(&content_range)? {
                Cut::Part { skip, take, content_range } => {
                    answer.is_part(content_range, take);
                    Window { skip, take }
                }
                Cut::Beyond(total) => {
                    answer.is_beyond(total);
                    Window::ALL
                }
            },
            (206, None) => return Err(Reason::AnswerPart),
            _ => Window::ALL,
        };
        Ok(Look::Wash(Box::new(wash), window))
    }

    /// How the body goes on, so that the client sees where it ends, and whether it was cut off: within TLS a body without a length gets
    /// chunks, for not every program heeds an end that TLS does not tell of. One that knows no chunks has it to the end of the connection.
    fn frame(&self, answer: &mut Answer, client: &Client) {
        answer.body = match answer.body {
            Body::ToEnd if self.request.knows_chunks && client.stream.is_tls() => Body::Chunked,
            Body::Chunked if !self.request.knows_chunks => Body::ToEnd,
            body => body,
        };
    }

    /// The head goes on only when the body, as far as it must be there, begins as one.
    async fn send_head(&self, client: &mut Client, upstream: &Client) -> Result<(), Reason> {
        if self.request.expects_continue {
            client.stream.write_all(CONTINUE).await.map_err(|_| Reason::ClientBroke)?;
        }
        if self.request.body == Body::Chunked {
            let mut first = Chunks::new(Extensions::Refused);
            while first.step(&client.buffer)? == Step::More {
                let read = client.stream.read_into(&mut client.buffer);
                match tokio::time::timeout(self.shared.settings.body_timeout, read).await {
                    Ok(Ok(count)) if count > 0 => {}
                    _ => return Err(Reason::BodyIncomplete),
                }
            }
        }
        let up = self.meter(
            &client.stream,
            &upstream.stream,
            &self.way.traffic.up,
            self.shared.settings.idle_timeout,
        );
        up.write(&self.request.render(self.keeps_upstream), Reason::UpstreamBroke).await
    }

    /// Sends the body while it waits for the answer, which may come early. Whether the whole body went comes back with it.
    async fn exchange_until_answer(
        &self,
        client: &mut Client,
        upstream: &mut Client,
        question: Question,
    ) -> Result<(Answer, bool), Reason> {
        let answer = read_answer(&upstream.stream, &mut upstream.buffer, question);
        let mut answer = pin!(tokio::time::timeout(self.shared.settings.answer_timeout, answer));
        let uploaded = {
            let mut upload = pin!(self.upload(client, &upstream.stream));
            tokio::select! {
                biased;
                sent = &mut upload => match sent {
                    Ok(()) => true,
                    // It does not listen any more; it may still have said why.
                    Err(Reason::UpstreamBroke) => false,
                    Err(reason) => return Err(reason),
                },
                answer = &mut answer => return Ok((answer.map_err(|_| Reason::AnswerTimeout)??, false)),
            }
        };
        tokio::select! {
            answer = &mut answer => Ok((answer.map_err(|_| Reason::AnswerTimeout)??, uploaded)),
            () = gone(&client.stream, &mut client.buffer), if !self.is_session => Err(Reason::ClientBroke),
        }
    }

    async fn upload(&self, client: &mut Client, upstream: &Stream) -> Result<(), Reason> {
        let up =
            self.meter(&client.stream, upstream, &self.way.traffic.up, self.shared.settings.body_timeout);
        let faults = Faults {
            malformed: Reason::ChunkMalformed,
            ended: Reason::BodyIncomplete,
            from: Reason::BodyIncomplete,
            to: Reason::UpstreamBroke,
        };
        let mut look = match self.is_session {
            true => Look::Placeholders(PlaceholderScan::default()),
            false => Look::Nowhere,
        };
        let body = self.request.body;
        let passage = Passage { comes: body, goes: body, extensions: Extensions::Refused, faults };
        up.copy_body(&mut client.buffer, passage, &mut look).await
    }

    fn meter<'m>(
        &'m self,
        from: &'m Stream,
        to: &'m Stream,
        passed: &'m AtomicU64,
        timeout: Duration,
    ) -> Meter<'m> {
        Meter { way: self.way, from, to, passed, timeout, idle: self.shared.settings.idle_timeout }
    }
}

/// Reads heads until one is the answer.
async fn read_answer(stream: &Stream, buffer: &mut BytesMut, question: Question) -> Result<Answer, Reason> {
    for _ in 0..=EGRESS_INTERIM_ANSWERS_MAX {
        read_beginning(stream, buffer).await?;
        let length = match super::connection::read_head(stream, buffer).await {
            Ok(Some(length)) => length,
            Ok(None) => return Err(Reason::UpstreamBroke),
            Err(Reason::HeadTooLarge) => return Err(Reason::AnswerHeadTooLarge),
            Err(_) => return Err(Reason::AnswerMalformed),
        };
        let head = buffer.split_to(length);
        let answer = parse_answer(&head, question)?;
        if !answer.is_interim() {
            return Ok(answer);
        }
    }
    Err(Reason::AnswerInterim)
}

/// Reads the first bytes of an answer. A host that speaks another protocol may wait for more after it has said something.
async fn read_beginning(stream: &Stream, buffer: &mut BytesMut) -> Result<(), Reason> {
    const BEGINNING: &[u8] = b"HTTP/";
    loop {
        if buffer.iter().zip(BEGINNING).any(|(byte, expected)| byte != expected) {
            return Err(Reason::AnswerMalformed);
        }
        if buffer.len() >= BEGINNING.len() {
            return Ok(());
        }
        if matches!(stream.read_into(buffer).await, Ok(0) | Err(_)) {
            return Err(Reason::UpstreamBroke);
        }
    }
}

//! Why the proxy refused or ended something: one closed list, with the code that audit records and clients see and the
//! status of the answer. Codes are stable: customers write alerts on them; reasons that share one differ in what they tell people.

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $why:literal;)*) => {
        /// Why a request was refused, or what ended a connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for documentation and tests.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The status of the answer, where one can still be given.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What was wrong and what to do about it, for people; part of a sentence, in ASCII, and nothing that anybody sent.
            pub fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }
        }
    };
}

reasons! {
    // The head.
    /// Not a request head by our grammar: bare CR or LF, a fold, a bad name or byte.
    HeadMalformed = "head-malformed", 400, "the head of the request is not HTTP, or has a byte that proxies read in different ways";
    /// More bytes or header fields than a head may have.
    HeadTooLarge = "head-too-large", 431, "the head of the request has more than 16 KiB or 100 fields";
    /// The head did not come in time.
    HeadTimeout = "head-timeout", 408, "the head of the request did not come in time";
    /// A method that no proxy should pass on: TRACE, TRACK.
    MethodRefused = "method-refused", 405, "this method is not passed on";
    /// An HTTP version that is not spoken here.
    VersionRefused = "version-refused", 505, "HTTP/1.1 and HTTP/1.0 are spoken here";
    /// A request target of the wrong form, or one that is ambiguous.
    TargetRefused = "target-refused", 400, "a proxy is asked with CONNECT host:port or with an absolute http:// URL";
    /// A scheme other than `http` in an absolute target.
    SchemeRefused = "scheme-refused", 400, "a proxy is asked for http:// URLs; for https:// use CONNECT host:port";
    /// A user name or password in front of the host.
    UserinfoRefused = "userinfo-refused", 400, "a user name or password stands in front of the host";
    /// A host that is not exactly a host name or an address.
    HostInvalid = "host-invalid", 400, "the host is neither a plain host name nor an address";
    /// A port that is not exactly a port.
    PortInvalid = "port-invalid", 400, "the port is missing or not a port";
    /// `Host` is missing, twice there, or says another host than the target.
    HostMismatch = "host-mismatch", 400, "the Host field is missing, or does not name the host that is asked for";
    /// Content-Length and Transfer-Encoding that leave open where the body ends.
    FramingAmbiguous = "framing-ambiguous", 400, "Content-Length and Transfer-Encoding leave open where the body ends";
    /// A chunk that is not exactly a chunk.
    ChunkMalformed = "chunk-malformed", 400, "a chunk of the body is not one";
    /// The body ended early or stood still.
    BodyIncomplete = "body-incomplete", 400, "the body ended early or did not go on";
    /// An upgrade to anything but WebSocket, or one with a body.
    UpgradeRefused = "upgrade-refused", 400, "only a GET without a body becomes a WebSocket, and none to a host with a credential of the vault";
    // Who asks.
    /// No token, or one that opens nothing.
    TokenRefused = "token-refused", 407, "the pass of the server is missing or wrong";
    /// Too many wrong tokens from one peer.
    TokenAttempts = "token-attempts", 429, "too many wrong passes came from there";
    // The policy.
    /// Not on the list of what this principal may reach.
    NotAllowed = "not-allowed", 403, "the host is not on the list of what may be reached";
    /// On the list of what is denied.
    Denied = "denied", 403, "the host is on the list of what may not be reached";
    /// Not on the list of an offline tenant.
    Offline = "offline", 403, "there is no way out but to the hosts that are listed";
    /// The host of an upstream, which only the router reaches.
    RouterOnly = "router-only", 403, "this is a host of the models, which only the server calls";
    /// A credential's host, asked for in a way by which the credential could not be attached.
    ManagedHost = "managed-host", 403, "the host has a credential of the vault, and is reached over TLS at the port of the credential only";
    /// A credential that is not ours to a host that has ours.
    ForeignCredential = "foreign-credential", 403, "the host has a credential of the vault, which is attached by itself; send none of your own";
    /// A placeholder anywhere but in its credential's place.
    PlaceholderMisplaced = "placeholder-misplaced", 403, "the placeholder of a credential stands where no credential goes";
    /// A signature over a request that would be changed.
    SignedRequest = "signed-request", 403, "the request is signed, and a credential of the vault would change it";
    /// The tunnel's TLS cannot be opened: the sandbox does not trust us for this host, or not yet.
    InterceptionUnavailable = "interception-unavailable", 503, "the TLS of this host cannot be opened for this sandbox yet";
    /// The vault is sealed.
    VaultSealed = "vault-sealed", 503, "the vault is sealed";
    /// The credential is not there any more, or was never.
    CredentialMissing = "credential-missing", 503, "the credential for this host is not there";
    /// The credential cannot be had now: its grant was refused, or its endpoint does not answer.
    CredentialUnavailable = "credential-unavailable", 502, "the credential for this host cannot be had at the moment";
    /// The credential holds what no header or query can.
    CredentialUnusable = "credential-unusable", 502, "the credential for this host has characters that cannot be sent";
    /// An address instead of a name, and not listed as such.
    LiteralRefused = "literal-refused", 403, "an address is reached only where it is listed as one; use the name";
    // Limits.
    /// The session has as many connections as it may have.
    SessionConnections = "session-connections", 429, "the session has as many connections as it may have";
    /// The tenant's sessions together have as many connections as they may have.
    TenantConnections = "tenant-connections", 429, "the tenant's sessions have as many connections as they may have";
    /// The session has moved as many bytes as it may move.
    SessionBytes = "session-bytes", 429, "the session has moved as many bytes as it may move";
    /// The session asked for too many different names under a wildcard.
    NameRate = "name-rate", 429, "too many different names were asked for within a minute";
    /// The proxy has as many connections as it may have.
    ProxyConnections = "proxy-connections", 503, "the proxy has as many connections as it may have";
    /// No audit record could be written.
    AuditUnavailable = "audit-unavailable", 503, "the audit log cannot be written";
    // Name to address.
    /// The name does not resolve.
    ResolveFailed = "resolve-failed", 502, "the name has no address";
    /// The resolver did not answer in time.
    ResolveTimeout = "resolve-timeout", 504, "the name server did not answer in time";
    /// More aliases than are followed, or ones that lead nowhere.
    CnameChain = "cname-chain", 502, "the aliases of the name lead nowhere";
    /// Every address of the name is one that is never dialled for this principal.
    AddressRefused = "address-refused", 403, "the name leads to an address that is not public";
    /// The address is this host's own, or the proxy's.
    OwnAddress = "own-address", 403, "the name leads to this machine";
    // The connection.
    /// Nobody answers there.
    DialFailed = "dial-failed", 502, "nobody answers there";
    /// The dial took too long.
    DialTimeout = "dial-timeout", 504, "nobody answered in time";
    /// The upstream's certificate is not its name's, or nobody's that is trusted.
    CertificateRefused = "certificate-refused", 502, "the certificate of the host is not one that can be trusted";
    /// Its time is over.
    CertificateExpired = "certificate-refused", 502, "the certificate of the host has expired";
    /// Its time has not come.
    CertificateNotYetValid = "certificate-refused", 502, "the certificate of the host is not valid yet; check the clocks";
    /// It is another name's.
    CertificateName = "certificate-refused", 502, "the certificate of the host is for another name";
    /// It is nobody's that is trusted, or the chain to whoever that is has a gap.
    CertificateIssuer = "certificate-refused", 502, "the certificate of the host comes from an authority that is not trusted, or a link of its chain is missing";
    /// It was taken back.
    CertificateRevoked = "certificate-refused", 502, "the certificate of the host was revoked";
    /// It is not for servers.
    CertificatePurpose = "certificate-refused", 502, "the certificate of the host is not one for servers";
    /// There was no TLS with the upstream.
    TlsFailed = "tls-failed", 502, "there was no TLS with the host";
    /// What came back was not TLS.
    TlsNotSpoken = "tls-failed", 502, "the host does not speak TLS at this port";
    /// Versions or ciphers.
    TlsVersion = "tls-failed", 502, "the host has no version or cipher of TLS that is safe enough";
    /// It said no.
    TlsAlert = "tls-failed", 502, "the host refused the handshake of TLS";
    // The tunnel's beginning.
    /// The client's first bytes are not TLS, and the host is not marked raw.
    NotTls = "not-tls", 400, "this tunnel is for TLS; for http:// or ws:// send absolute URLs, or let the operator mark the host raw";
    /// A ClientHello that cannot be read for certain.
    HelloMalformed = "hello-malformed", 400, "the beginning of TLS cannot be read for certain";
    /// The ClientHello did not come in time.
    HelloTimeout = "hello-timeout", 408, "TLS did not begin in time";
    /// No server name in the ClientHello.
    SniMissing = "sni-missing", 400, "TLS does not name the host";
    /// Another server name than the tunnel's host.
    SniMismatch = "sni-mismatch", 400, "TLS names another host than the tunnel";
    /// Encrypted Client Hello: the name cannot be seen.
    EchRefused = "ech-refused", 400, "TLS hides the name of the host; the operator may set allow_ech for it";
    /// The client did not finish TLS with us: most likely it does not trust this session's authority.
    ClientTlsFailed = "client-tls-failed", 400, "the program does not trust the certificate authority of this sandbox";
    /// Within an opened tunnel, a request for another host.
    Misdirected = "misdirected", 421, "the request is for another host than the tunnel";
    // The end of what was open.
    /// The upstream's answer is not HTTP by our grammar.
    AnswerMalformed = "answer-malformed", 502, "the answer of the host is not HTTP";
    /// More bytes or fields than the head of an answer may have.
    AnswerHeadTooLarge = "answer-head-too-large", 502, "the head of the answer has more than 16 KiB or 100 fields";
    /// Content-Length and Transfer-Encoding that leave open where the answer ends.
    AnswerFraming = "answer-framing", 502, "the answer of the host leaves open where it ends";
    /// A chunk of the answer that is none.
    AnswerChunkMalformed = "answer-chunk-malformed", 502, "a chunk of the answer is not one";
    /// More interim answers than anybody needs.
    AnswerInterim = "answer-interim", 502, "the host sends interim answers without end";
    /// A switch to a protocol that nobody asked for.
    AnswerUpgrade = "answer-upgrade", 502, "the host switched to a protocol that nobody asked for";
    /// The answer ended before its end; without a length, it ended without saying so.
    AnswerTruncated = "answer-truncated", 502, "the answer of the host ended before its end";
    /// A content coding that is not known here, to a request with a credential.
    AnswerCoding = "answer-coding", 502, "the answer has a content coding that cannot be looked through for the credential";
    /// The content coding is not what it says.
    AnswerUndecodable = "answer-undecodable", 502, "the content coding of the answer cannot be undone";
    /// A part that was not asked for, to a request with a credential.
    AnswerPart = "answer-part", 502, "the host sent another part than was asked for";
    /// A secret within something packed, where it cannot be taken out.
    AnswerHoldsSecret = "answer-holds-secret", 502, "a credential of the vault is inside the packed content of the answer";
    /// The upstream did not begin its answer in time.
    AnswerTimeout = "answer-timeout", 504, "the host did not begin its answer in time";
    /// The upstream broke off.
    UpstreamBroke = "upstream-broke", 502, "the host broke the connection off";
    /// The client broke off.
    ClientBroke = "client-broke", 400, "the program broke the connection off";
    /// Silent for too long.
    IdleTimeout = "idle-timeout", 408, "nothing was sent for too long";
    /// A new policy does not allow it any more.
    PolicyChanged = "policy-changed", 403, "a new policy does not allow it any more";
    /// The session is over.
    DoorClosed = "door-closed", 503, "the session is over";
    /// The proxy stops.
    Shutdown = "shutdown", 503, "the proxy stops";
    /// Both sides were done.
    Done = "done", 200, "both sides were done";
}

impl Reason {
    /// Whether the upstream had been asked, and its answer was wrong or did not come.
    pub(crate) fn is_of_the_answer(self) -> bool {
        matches!(
            self,
            Self::AnswerMalformed
                | Self::AnswerHeadTooLarge
                | Self::AnswerFraming
                | Self::AnswerChunkMalformed
                | Self::AnswerInterim
                | Self::AnswerUpgrade
                | Self::AnswerTruncated
                | Self::AnswerCoding
                | Self::AnswerUndecodable
                | Self::AnswerPart
                | Self::AnswerHoldsSecret
                | Self::AnswerTimeout
                | Self::UpstreamBroke
        )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl std::error::Error for Reason {}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.code(), self.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        let mut told: Vec<_> = Reason::ALL.iter().map(|reason| (reason.code(), reason.why())).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| (200..600).contains(&reason.status())));
        // It stands in a status line, in a quoted string and in JSON.
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
        assert!(told.iter().all(|(_, why)| why.bytes().all(plain) && why.len() < 160), "{told:?}");
    }
}

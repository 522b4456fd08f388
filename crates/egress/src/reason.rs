//! Why the proxy refused or ended something: one closed list, with the code that audit records and clients see and the
//! status of the answer. Codes are stable: customers write alerts on them.

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal;)*) => {
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
        }
    };
}

reasons! {
    // The head.
    /// Not a request head by our grammar: bare CR or LF, a fold, a bad name or byte.
    HeadMalformed = "head-malformed", 400;
    /// More bytes or header fields than a head may have.
    HeadTooLarge = "head-too-large", 431;
    /// The head did not come in time.
    HeadTimeout = "head-timeout", 408;
    /// A method that no proxy should pass on: TRACE, TRACK.
    MethodRefused = "method-refused", 405;
    /// An HTTP version that is not spoken here.
    VersionRefused = "version-refused", 505;
    /// A request target of the wrong form, or one that is ambiguous.
    TargetRefused = "target-refused", 400;
    /// A scheme other than `http` in an absolute target.
    SchemeRefused = "scheme-refused", 400;
    /// A user name or password in front of the host.
    UserinfoRefused = "userinfo-refused", 400;
    /// A host that is not exactly a host name or an address.
    HostInvalid = "host-invalid", 400;
    /// A port that is not exactly a port.
    PortInvalid = "port-invalid", 400;
    /// `Host` is missing, twice there, or says another host than the target.
    HostMismatch = "host-mismatch", 400;
    /// Content-Length and Transfer-Encoding that leave open where the body ends.
    FramingAmbiguous = "framing-ambiguous", 400;
    /// A chunk that is not exactly a chunk.
    ChunkMalformed = "chunk-malformed", 400;
    /// The body ended early or stood still.
    BodyIncomplete = "body-incomplete", 400;
    /// An upgrade to anything but WebSocket, or one with a body.
    UpgradeRefused = "upgrade-refused", 400;
    // Who asks.
    /// No token, or one that opens nothing.
    TokenRefused = "token-refused", 407;
    /// Too many wrong tokens from one peer.
    TokenAttempts = "token-attempts", 429;
    // The policy.
    /// Not on the list of what this principal may reach.
    NotAllowed = "not-allowed", 403;
    /// On the list of what is denied.
    Denied = "denied", 403;
    /// Not on the list of an offline tenant.
    Offline = "offline", 403;
    /// The host of an upstream, which only the router reaches.
    RouterOnly = "router-only", 403;
    /// A credential's host, asked for in a way by which the credential could not be attached.
    ManagedHost = "managed-host", 403;
    /// A credential that is not ours to a host that has ours.
    ForeignCredential = "foreign-credential", 403;
    /// A placeholder anywhere but in its credential's place.
    PlaceholderMisplaced = "placeholder-misplaced", 403;
    /// A signature over a request that would be changed.
    SignedRequest = "signed-request", 403;
    /// The tunnel's TLS cannot be opened: the sandbox does not trust us for this host, or not yet.
    InterceptionUnavailable = "interception-unavailable", 503;
    /// The vault is sealed.
    VaultSealed = "vault-sealed", 503;
    /// The credential is not there any more, or was never.
    CredentialMissing = "credential-missing", 503;
    /// The credential cannot be had now: its grant was refused, or its endpoint does not answer.
    CredentialUnavailable = "credential-unavailable", 502;
    /// The credential holds what no header or query can.
    CredentialUnusable = "credential-unusable", 502;
    /// An address instead of a name, and not listed as such.
    LiteralRefused = "literal-refused", 403;
    // Limits.
    /// The session has as many connections as it may have.
    SessionConnections = "session-connections", 429;
    /// The session has moved as many bytes as it may move.
    SessionBytes = "session-bytes", 429;
    /// The session asked for too many different names under a wildcard.
    NameRate = "name-rate", 429;
    /// The proxy has as many connections as it may have.
    ProxyConnections = "proxy-connections", 503;
    /// No audit record could be written.
    AuditUnavailable = "audit-unavailable", 503;
    // Name to address.
    /// The name does not resolve.
    ResolveFailed = "resolve-failed", 502;
    /// The resolver did not answer in time.
    ResolveTimeout = "resolve-timeout", 504;
    /// More aliases than are followed, or ones that lead nowhere.
    CnameChain = "cname-chain", 502;
    /// Every address of the name is one that is never dialled for this principal.
    AddressRefused = "address-refused", 403;
    /// The address is this host's own, or the proxy's.
    OwnAddress = "own-address", 403;
    // The connection.
    /// Nobody answers there.
    DialFailed = "dial-failed", 502;
    /// The dial took too long.
    DialTimeout = "dial-timeout", 504;
    /// The upstream's certificate is not its name's, or nobody's that is trusted.
    CertificateRefused = "certificate-refused", 502;
    /// There was no TLS with the upstream.
    TlsFailed = "tls-failed", 502;
    // The tunnel's beginning.
    /// The client's first bytes are not TLS, and the host is not marked raw.
    NotTls = "not-tls", 400;
    /// A ClientHello that cannot be read for certain.
    HelloMalformed = "hello-malformed", 400;
    /// The ClientHello did not come in time.
    HelloTimeout = "hello-timeout", 408;
    /// No server name in the ClientHello.
    SniMissing = "sni-missing", 400;
    /// Another server name than the tunnel's host.
    SniMismatch = "sni-mismatch", 400;
    /// Encrypted Client Hello: the name cannot be seen.
    EchRefused = "ech-refused", 400;
    /// The client did not finish TLS with us: most likely it does not trust this session's authority.
    ClientTlsFailed = "client-tls-failed", 400;
    /// Within an opened tunnel, a request for another host.
    Misdirected = "misdirected", 421;
    // The end of what was open.
    /// The upstream's answer is not HTTP by our grammar.
    AnswerMalformed = "answer-malformed", 502;
    /// The upstream did not begin its answer in time.
    AnswerTimeout = "answer-timeout", 504;
    /// The upstream broke off.
    UpstreamBroke = "upstream-broke", 502;
    /// The client broke off.
    ClientBroke = "client-broke", 400;
    /// Silent for too long.
    IdleTimeout = "idle-timeout", 408;
    /// A new policy does not allow it any more.
    PolicyChanged = "policy-changed", 403;
    /// The session is over.
    DoorClosed = "door-closed", 503;
    /// The proxy stops.
    Shutdown = "shutdown", 503;
    /// Both sides were done.
    Done = "done", 200;
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl std::error::Error for Reason {}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        let mut codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| (200..600).contains(&reason.status())));
    }
}

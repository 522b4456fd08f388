//! A session's own certificate authority: made with its door, trusted by its sandbox and by nobody else, good for the hosts whose
//! connections the proxy opens and for no other name. Its key never leaves this memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use palisade_protocol::limits::EGRESS_LEAVES_MAX;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{EgressError, HostName};

/// How long an authority is good for, in seconds: a sandbox that lives longer is told of a new one at its next start.
const LIFE_S: i64 = 24 * 3600;
/// How long before now it begins: clocks inside are the same, but programs round.
const BEFORE_S: i64 = 300;

/// An authority and the certificates that it has given out.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// One key for all its leaves: they all live here.
    leaf_key: KeyPair,
    expires: std::time::Instant,
    leaves: Mutex<HashMap<HostName, Arc<ServerConfig>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority for these names, each with all that is below it where it begins with a dot. Not empty: a list of nothing permits
    /// everything.
    pub(crate) fn new(names: &[String]) -> Result<Self, EgressError> {
        let key = KeyPair::generate().map_err(EgressError::Certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Palisade egress, this sandbox only");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        (params.not_before, params.not_after) = validity();
        let certificate = params.self_signed(&key).map_err(EgressError::Certificate)?;
        let pem = certificate.pem();
        Ok(Self {
            pem,
            issuer: Issuer::new(params, key),
            leaf_key: KeyPair::generate().map_err(EgressError::Certificate)?,
            expires: std::time::Instant::now() + Duration::from_secs(LIFE_S.unsigned_abs() / 2),
            leaves: Mutex::default(),
        })
    }

    /// The certificate, as programs inside want it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Whether the half of its life is over, so that whoever can should ask for another.
    pub(crate) fn is_old(&self) -> bool {
        std::time::Instant::now() >= self.expires
    }

    /// What the proxy is this host with.
    pub(crate) fn server_config(&self, host: &HostName) -> Result<Arc<ServerConfig>, EgressError> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leaves.get(host) {
            return Ok(known.clone());
        }
        if leaves.len() >= EGRESS_LEAVES_MAX {
            // Wildcards let a client choose names without end; what it comes back to is made again.
            leaves.clear();
        }
        let made = Arc::new(self.make(host)?);
        leaves.insert(host.clone(), made.clone());
        Ok(made)
    }

    fn make(&self, host: &HostName) -> Result<ServerConfig, EgressError> {
        let mut params =
            CertificateParams::new(vec![host.as_str().to_owned()]).map_err(EgressError::Certificate)?;
        // Without a subject the name stands in one place only, which is then critical (RFC 5280, 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity();
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(EgressError::Certificate)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let chain = vec![CertificateDer::from(leaf)];
        let mut config = super::builder_of_servers()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(EgressError::Tls)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session resumed is a handshake saved; the ticketer's own keys change by themselves.
        config.max_early_data_size = 0;
        Ok(config)
    }
}

fn validity() -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (now - time::Duration::seconds(BEFORE_S), now + time::Duration::seconds(LIFE_S))
}

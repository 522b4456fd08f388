//! `[egress]`, `[tenant.egress]` and `[[tenant.egress.host]]`: where the proxy is, and who may reach what through it. Patterns and networks
//! are checked by the egress room itself, whole, before anything starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use palisade_egress::{BucketSpec, Endpoint, HostRule, ProxyAddress, TenantSpec};
use palisade_protocol::TenantName;
use serde::Deserialize;

use super::{Config, Mode, SecretRef};

/// The proxy. Every key has a default: a proxy in the server's own process that nobody else reaches.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EgressSection {
    /// Where the proxy takes other servers' connections: an address, or `unix:PATH`. Needs `key`.
    pub(crate) listen: Option<Listen>,
    /// The proxy of this server is in another process, which listens there. Needs `key`.
    pub(crate) via: Option<Listen>,
    /// What the two know and nobody else: at least 32 characters.
    pub(crate) key: Option<SecretRef>,
    /// The one resolver; the first name server of the host when absent.
    pub(crate) resolver: Option<SocketAddr>,
    /// Private networks that sandboxes may reach.
    pub(crate) allow_addresses: Vec<String>,
    /// PEM files of certificate authorities that upstreams are believed on, besides the system's.
    pub(crate) ca_files: Vec<PathBuf>,
    /// Where the audit log is; below the data directory unless absolute. `audit` when absent.
    pub(crate) audit_dir: Option<PathBuf>,
    /// Where the end of the audit log is noted, so that `palisade audit verify` sees a log that was cut; below the data directory unless
    /// absolute, and best on another disk. `audit-anchor` when absent.
    pub(crate) audit_anchor_dir: Option<PathBuf>,
    /// Where copies of it go.
    pub(crate) ship: Option<ShipSection>,
}

/// `[egress.ship]`: a folder or a bucket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShipSection {
    /// A folder that this server's user may write.
    pub(crate) folder: Option<PathBuf>,
    /// An S3-compatible bucket.
    pub(crate) bucket: Option<BucketSection>,
    /// How far a copy may be behind.
    #[serde(default = "default_ship_every_s")]
    pub(crate) every_s: u64,
}

fn default_ship_every_s() -> u64 {
    300
}

/// A bucket, and the key to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketSection {
    endpoint: String,
    name: String,
    #[serde(default = "default_region")]
    region: String,
    #[serde(default)]
    prefix: String,
    access_key: SecretRef,
    secret_key: SecretRef,
}

fn default_region() -> String {
    "us-east-1".into()
}

impl BucketSection {
    /// With its key read.
    pub(crate) fn read(&self) -> Result<BucketSpec> {
        Ok(BucketSpec {
            endpoint: self.endpoint.clone(),
            name: self.name.clone(),
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            access_key: self.access_key.read()?,
            secret_key: self.secret_key.read()?,
        })
    }
}

/// An address, or a socket of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) ProxyAddress);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self(ProxyAddress::Unix(path.into())));
        }
        let wrong =
            || serde::de::Error::custom("an address such as 127.0.0.1:3128, or unix:/an/absolute/path");
        super::address::parse(&text).map(|address| Self(ProxyAddress::Tcp(address))).map_err(|_| wrong())
    }
}

/// What one tenant's sessions may reach.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TenantEgressSection {
    /// The whole list of what may be reached. Absent: every public name, or nothing for an offline tenant.
    pub(crate) allow: Option<Vec<String>>,
    /// What may not be reached, whatever `allow` says.
    pub(crate) deny: Vec<String>,
    /// What is special about some hosts.
    pub(crate) host: Vec<HostSection>,
}

/// One host, or `*.suffix`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostSection {
    name: String,
    #[serde(default)]
    raw: bool,
    #[serde(default)]
    upgrade: bool,
    #[serde(default)]
    intercept: bool,
    #[serde(default)]
    allow_ech: bool,
}

impl EgressSection {
    pub(super) fn check(&self) -> Result<()> {
        if (self.listen.is_some() || self.via.is_some()) && self.key.is_none() {
            bail!("[egress] has listen or via and no key: whoever reached it would be whoever it says it is");
        }
        if let Some(ship) = &self.ship {
            if ship.folder.is_some() == ship.bucket.is_some() {
                bail!("[egress.ship] needs a folder or a bucket, and not both");
            }
            if ship.every_s == 0 {
                bail!("[egress.ship] every_s = 0: a copy cannot be there before the record");
            }
        }
        if self.listen.is_some() && self.via.is_some() {
            bail!("[egress] has listen and via: a proxy is here or somewhere else");
        }
        Ok(())
    }

    /// The secrets that it names.
    pub(super) fn secrets(&mut self) -> Vec<&mut SecretRef> {
        let bucket = self.ship.as_mut().and_then(|ship| ship.bucket.as_mut());
        let of_bucket =
            bucket.into_iter().flat_map(|bucket| [&mut bucket.access_key, &mut bucket.secret_key]);
        self.key.iter_mut().chain(of_bucket).collect()
    }

    /// The folder of the audit log's anchors.
    pub(crate) fn anchor_folder(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.audit_anchor_dir.as_deref().unwrap_or(Path::new("audit-anchor")))
    }

    /// The audit log's folder.
    pub(crate) fn audit_folder(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.audit_dir.as_deref().unwrap_or(Path::new("audit")))
    }

    /// The one resolver: the configured one, or the host's first name server, read once.
    pub(crate) fn resolver(&self) -> Result<SocketAddr> {
        const RESOLV_CONF: &str = "/etc/resolv.conf";
        const DNS_PORT: u16 = 53;
        if let Some(resolver) = self.resolver {
            return Ok(resolver);
        }
        let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let first = text.lines().find_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
        // Without one, names fail to resolve and say so; addresses and everything local work.
        let address = first.unwrap_or(std::net::IpAddr::from([127, 0, 0, 1]));
        Ok(SocketAddr::new(address, DNS_PORT))
    }

    /// Paths are meant from where the configuration lies.
    pub(super) fn make_absolute(&mut self, base: &Path) -> Result<()> {
        for file in &mut self.ca_files {
            *file = std::path::absolute(base.join(&*file)).with_context(|| {
                format!("the path {} in [egress] ca_files cannot be made absolute", file.display())
            })?;
        }
        Ok(())
    }
}

impl TenantEgressSection {
    /// What people paste from a browser's address line. The egress room looks at the rest.
    pub(super) fn check(&self, tenant: &TenantName) -> Result<()> {
        let hosts =
            self.allow.iter().flatten().chain(&self.deny).chain(self.host.iter().map(|host| &host.name));
        for written in hosts {
            let host = written.split_once("://").map_or(written.as_str(), |(_, rest)| rest);
            let host = host.split(['/', '?', '#']).next().unwrap_or_default();
            if host != written {
                bail!(
                    "tenant {:?}: {written:?} is a URL or a path; write only the host: {host:?}",
                    tenant.as_str()
                );
            }
        }
        Ok(())
    }

    /// As the egress room wants it; credentials are the vault's to add.
    pub(crate) fn spec(&self, mode: Mode) -> TenantSpec {
        let rule = |host: &HostSection| HostRule {
            name: host.name.clone(),
            raw: host.raw,
            upgrade: host.upgrade,
            intercept: host.intercept,
            allow_ech: host.allow_ech,
        };
        TenantSpec {
            offline: matches!(mode, Mode::Offline),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            hosts: self.host.iter().map(rule).collect(),
            credentials: Vec::new(),
        }
    }
}

impl Config {
    /// Where copies of the log go over the network.
    fn ship_service(&self) -> Result<Option<Endpoint>> {
        let bucket = self.egress.ship.as_ref().and_then(|ship| ship.bucket.as_ref());
        let endpoint = bucket.map(|bucket| Endpoint::of_url(&bucket.endpoint)).transpose();
        endpoint.context("[egress.ship] bucket has an endpoint that is no URL")
    }

    /// What may be reached, as far as the configuration says: the upstreams, and each tenant's list.
    pub(crate) fn egress_policy(&self) -> Result<palisade_egress::PolicySpec> {
        let endpoint = |section: &super::UpstreamSection| {
            palisade_egress::Endpoint::of_url(&section.base_url)
                .with_context(|| format!("[[upstream]] {:?} has a base_url that is no URL", section.name))
        };
        let tenants = self.tenant.iter().map(|tenant| (tenant.name.clone(), tenant.egress.spec(tenant.mode)));
        Ok(palisade_egress::PolicySpec {
            upstreams: self.upstream.iter().map(endpoint).collect::<Result<_>>()?,
            services: self.ship_service()?.into_iter().collect(),
            tenant_services: Vec::new(),
            allow_addresses: self.egress.allow_addresses.clone(),
            tenants: tenants.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "[[tenant]]\nname = \"a\"\ntokens = [{ id = \"t\", key = \"env:X\" }]\n";

    #[test]
    fn the_documented_section_is_understood() {
        let text = format!(
            "[egress]\nlisten = \"127.0.0.1:3128\"\nkey = \"env:EGRESS_KEY\"\nresolver = \"10.0.0.10:53\"\n\
             allow_addresses = [\"10.20.0.0/16\"]\naudit_dir = \"audit\"\n{TENANT}\n[tenant.egress]\n\
             allow = [\"api.github.com\", \"*.example.com:443\"]\ndeny = [\"bad.example.com\"]\n\
             [[tenant.egress.host]]\nname = \"git.example.com\"\nraw = true\n"
        );
        let config = Config::parse(&text).unwrap();
        let policy = config.egress_policy().unwrap();
        assert_eq!(policy.tenants[0].1.hosts[0].name, "git.example.com");
        assert_eq!(config.egress.audit_folder(Path::new("/data")), Path::new("/data/audit"));
        assert_eq!(config.egress.resolver().unwrap(), "10.0.0.10:53".parse().unwrap());
    }

    #[test]
    fn what_could_not_work_is_refused() {
        for (text, said) in [
            ("[egress]\nlisten = \"127.0.0.1:3128\"".to_owned(), "no key"),
            ("[egress]\nlisten = \"unix:relative\"\nkey = \"env:K\"".to_owned(), "unix:/an/absolute/path"),
            (
                "[egress]\nvia = \"1.2.3.4:1\"\nlisten = \"1.2.3.4:1\"\nkey = \"env:K\"".to_owned(),
                "listen and via",
            ),
            (format!("{TENANT}[tenant.egress]\nallow = [\"*\"]"), "\"*\""),
            (format!("{TENANT}[tenant.egress]\nallow = [\"*.co.uk\"]"), "*.co.uk"),
            ("[egress.ship]\nevery_s = 60".to_owned(), "a folder or a bucket"),
            ("[egress.ship]\nfolder = \"/x\"\nevery_s = 0".to_owned(), "every_s = 0"),
            ("[egress]\nallow_addresses = [\"169.254.0.0/16\"]".to_owned(), "169.254.0.0/16"),
        ] {
            let error = format!("{:#}", Config::parse(&text).expect_err(&text));
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

//! A proxy with one door, for measurements and probes: the whole pipeline behind a plain TCP port, for one session of one tenant, with the
//! policy given by arguments. It is no way to run a proxy: whoever reaches the port is that session.
//!
//!     proxy --resolver 127.0.0.1:5300 --audit /tmp/audit --allow example.com:443 [--allow …]
//!
//! The address that it listens at is the first line of its output. It ends when its input does.

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use palisade_egress::{
    AuditLog, AuditSettings, Credentials, DoorLimits, HostRule, NoCredentials, PolicySpec, Principal, Proxy,
    ProxyParts, ProxySettings, Resolver, TenantSpec, Trust,
};
use palisade_protocol::id::{SessionId, TenantName};
use tokio::net::TcpListener;

/// How long connections have to come to their end once the input has.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);

/// What the arguments say.
struct Arguments {
    listen: SocketAddr,
    resolver: SocketAddr,
    audit: PathBuf,
    /// Patterns that may be reached; none: nothing.
    allow: Vec<String>,
    /// Hosts whose tunnels are opened.
    intercept: Vec<String>,
    /// Private networks that may be reached.
    allow_addresses: Vec<String>,
    /// Authorities that upstreams are believed on, beside the system's.
    trust: Vec<PathBuf>,
    /// Where the door's own authority is written to, for clients of intercepted hosts.
    trust_anchor: Option<PathBuf>,
    connections_max: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    let tenant = TenantName::parse("example")?;
    let (connections_max, tenant_connections_max) = (arguments.connections_max, arguments.connections_max);
    let settings = ProxySettings { connections_max, tenant_connections_max, ..ProxySettings::default() };
    let proxy = Proxy::new(ProxyParts {
        policy: arguments.policy(tenant.clone()),
        resolver: Resolver::new(arguments.resolver)?,
        audit: Arc::new(AuditLog::open(&arguments.audit, AuditSettings::default())?),
        trust: Trust::load(&arguments.trust)?,
        credentials: Credentials::new(),
        vault: Arc::new(NoCredentials),
        settings,
    })?;
    let principal = Principal::Session { tenant, session: SessionId::parse("sess_0123456789ab")? };
    let limits = DoorLimits { connections_max: arguments.connections_max, ..DoorLimits::default() };
    let door = proxy.door(principal, limits)?;
    if let (Some(file), Some(anchor)) = (&arguments.trust_anchor, door.trust_anchor()) {
        std::fs::write(file, anchor)?;
    }
    let listener = TcpListener::bind(arguments.listen).await?;
    let address = listener.local_addr()?;
    door.listen(listener);
    writeln!(std::io::stdout(), "{address}")?;
    // Whoever started it holds the other end, and cannot end without closing it.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    door.close();
    proxy.shutdown(GRACE).await;
    Ok(())
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut read = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            resolver: SocketAddr::from(([127, 0, 0, 1], 53)),
            audit: PathBuf::from("audit"),
            allow: Vec::new(),
            intercept: Vec::new(),
            allow_addresses: Vec::new(),
            trust: Vec::new(),
            trust_anchor: None,
            connections_max: ProxySettings::default().connections_max,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} has no value"))?;
            match name.as_str() {
                "--listen" => read.listen = value.parse()?,
                "--resolver" => read.resolver = value.parse()?,
                "--audit" => read.audit = value.into(),
                "--allow" => read.allow.push(value),
                "--intercept" => read.intercept.push(value),
                "--allow-addresses" => read.allow_addresses.push(value),
                "--trust" => read.trust.push(value.into()),
                "--trust-anchor" => read.trust_anchor = Some(value.into()),
                "--connections" => read.connections_max = value.parse()?,
                _ => return Err(format!("there is no argument {name}").into()),
            }
        }
        Ok(read)
    }

    fn policy(&self, tenant: TenantName) -> PolicySpec {
        let intercept =
            |name: &String| HostRule { name: name.clone(), intercept: true, ..HostRule::default() };
        let spec = TenantSpec {
            allow: Some(self.allow.clone()),
            hosts: self.intercept.iter().map(intercept).collect(),
            ..TenantSpec::default()
        };
        PolicySpec {
            allow_addresses: self.allow_addresses.clone(),
            tenants: vec![(tenant, spec)],
            ..PolicySpec::default()
        }
    }
}

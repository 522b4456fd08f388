//! palisade.toml: what an operator may say, checked whole before anything starts. Unknown keys are refused with
//! the line; secrets are named, never written here, and no error repeats a value that may be one after all.

pub(crate) mod address;
pub(crate) mod changes;
mod cors;
mod credits;
mod egress;
mod http;
mod mistake;
mod secret;
mod store;
mod vault;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use palisade_protocol::scope::LockedFolder;
use palisade_protocol::{LedgerName, TenantName};
use serde::Deserialize;

pub(crate) use cors::CorsSection;
pub(crate) use credits::{CreditsSection, LimitsSection, TenantCreditsSection};
pub(crate) use egress::{EgressSection, TenantEgressSection};
pub(crate) use http::HttpSection;
pub(crate) use secret::SecretRef;
pub(crate) use store::StoreSection;
pub(crate) use vault::VaultSection;

/// The file as a whole. Every key has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    #[serde(deserialize_with = "address::listen")]
    pub(crate) listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) http: HttpSection,
    pub(crate) store: StoreSection,
    pub(crate) vault: VaultSection,
    pub(crate) upstream: Vec<UpstreamSection>,
    pub(crate) model: BTreeMap<String, ModelSection>,
    pub(crate) tenant: Vec<TenantSection>,
    pub(crate) sandbox: SandboxSection,
    pub(crate) egress: EgressSection,
    pub(crate) inference: InferenceSection,
    pub(crate) events: EventsSection,
    pub(crate) client_tools: ClientToolsSection,
    pub(crate) sessions: SessionsSection,
    pub(crate) credits: CreditsSection,
    pub(crate) metrics: MetricsSection,
    /// The whole file, to be compared with a later one.
    #[serde(skip)]
    pub(crate) document: toml::Table,
    pub(crate) cors: CorsSection,
}

/// `[[upstream]]`: where models are really served.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamSection {
    pub(crate) name: String,
    pub(crate) dialect: String,
    pub(crate) base_url: String,
    pub(crate) api_key: Option<SecretRef>,
}

/// `[model."…"]`: one name of the catalog.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelSection {
    pub(crate) upstream: OneOrMore,
    pub(crate) upstream_model: String,
    #[serde(default)]
    pub(crate) price: PriceSection,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Vec<String> {
    fn from(names: OneOrMore) -> Self {
        match names {
            OneOrMore::One(name) => vec![name],
            OneOrMore::More(names) => names,
        }
    }
}

/// Dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PriceSection {
    pub(crate) input: f64,
    pub(crate) output: f64,
    pub(crate) cache_read: f64,
}

/// `[[tenant]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantSection {
    pub(crate) name: TenantName,
    /// Its own endpoints: no other tenant's key is taken under these names.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    #[serde(default)]
    pub(crate) mode: Mode,
    pub(crate) default_model: Option<String>,
    #[serde(default)]
    pub(crate) client_model_selection: bool,
    pub(crate) tokens: Vec<TokenSection>,
    #[serde(default)]
    pub(crate) memory: Memory,
    /// Folders at the top of its workspace that sandboxes may not change.
    #[serde(default = "locked_by_default")]
    pub(crate) locked: Vec<LockedFolder>,
    pub(crate) upload_mb: Option<u64>,
    /// What its workspace may take of the disk.
    pub(crate) workspace_gb: Option<f64>,
    /// How many files, folders and links it may have.
    pub(crate) workspace_files: Option<u64>,
    #[serde(default)]
    pub(crate) limits: LimitsSection,
    /// What its sandboxes may reach.
    #[serde(default)]
    pub(crate) egress: TenantEgressSection,
    /// Whose credits it spends: tenants that name the same ledger are paired. Its own name where only `credits` is
    /// there; without either nothing is debited.
    pub(crate) ledger: Option<LedgerName>,
    pub(crate) credits: Option<TenantCreditsSection>,
}

/// What stands in these folders is in every later session's prompt, or is what later sessions are told to do (decision 54).
pub(crate) fn locked_by_default() -> Vec<LockedFolder> {
    let folders = [".pokee", "skills", ".agents"].map(|name| LockedFolder::try_from(name.to_owned()));
    folders.into_iter().flatten().collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSection {
    pub(crate) id: String,
    pub(crate) key: SecretRef,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Standard,
    Offline,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Memory {
    #[default]
    Shared,
    Scoped,
    Off,
}

/// `[sandbox]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SandboxSection {
    /// The uid that everything runs as when the server is started as root.
    pub(crate) run_as: u32,
    /// `host-usr`, or the path of an unpacked image.
    pub(crate) rootfs: String,
    /// The hand's static binary; beside this program when absent.
    pub(crate) hand: Option<PathBuf>,
    /// What `deploy/runtime.sh` made.
    pub(crate) runtime: PathBuf,
    /// What one sandbox may use of the machine's memory, files in memory included.
    pub(crate) memory_mb: u64,
    /// Processes and threads of one sandbox.
    pub(crate) pids: u64,
    /// Processors' worth of time of one sandbox; 0.5 is half of one.
    pub(crate) cpus: f64,
}

/// `[inference]`: how long an upstream may take.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct InferenceSection {
    /// To the head of its answer.
    pub(crate) head_timeout_s: u64,
    /// Between two pieces of its answer.
    pub(crate) idle_timeout_s: u64,
    /// For one call with its retries, whatever comes in between.
    pub(crate) call_timeout_s: u64,
}

/// `[client_tools]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientToolsSection {
    /// How long a client has to answer a call.
    pub(crate) timeout_s: u64,
}

/// `[events]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EventsSection {
    /// How long a turn's events are kept after its end.
    pub(crate) retention_s: u64,
}

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MetricsSection {
    /// Where `/metrics` is answered without a key, beside the server's own address, where it needs one.
    #[serde(deserialize_with = "address::listen_maybe")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `[sessions]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SessionsSection {
    /// How long a session that is not persistent is kept after its last response.
    pub(crate) idle_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: PathBuf::from("palisade-data"),
            http: HttpSection::default(),
            store: StoreSection::default(),
            vault: VaultSection::default(),
            upstream: Vec::new(),
            model: BTreeMap::new(),
            tenant: Vec::new(),
            sandbox: SandboxSection::default(),
            egress: EgressSection::default(),
            inference: InferenceSection::default(),
            events: EventsSection::default(),
            client_tools: ClientToolsSection::default(),
            sessions: SessionsSection::default(),
            credits: CreditsSection::default(),
            metrics: MetricsSection::default(),
            document: toml::Table::new(),
            cors: CorsSection::default(),
        }
    }
}

impl Default for SandboxSection {
    fn default() -> Self {
        Self {
            run_as: 10001,
            rootfs: "host-usr".to_owned(),
            hand: None,
            runtime: PathBuf::from("/opt/palisade/runtime"),
            memory_mb: 1024,
            pids: 256,
            cpus: 1.0,
        }
    }
}

impl Default for InferenceSection {
    fn default() -> Self {
        Self { head_timeout_s: 60, idle_timeout_s: 120, call_timeout_s: 1200 }
    }
}

impl Default for ClientToolsSection {
    fn default() -> Self {
        // Contract §4.
        Self { timeout_s: 600 }
    }
}

impl Default for SessionsSection {
    fn default() -> Self {
        Self { idle_s: palisade_protocol::limits::SESSION_IDLE_DEFAULT_S }
    }
}

impl Default for EventsSection {
    fn default() -> Self {
        // Contract §4.
        Self { retention_s: 120 }
    }
}

impl Config {
    /// Reads the file, or takes the defaults when there is none to read.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else {
            let mut config = Self::default();
            config.sandbox.make_absolute(Path::new(""))?;
            return Ok(config);
        };
        let text =
            text_of(file).with_context(|| format!("the configuration {} cannot be read", file.display()))?;
        let mut config = Self::parse(&text)
            .with_context(|| format!("the configuration {} is not valid", file.display()))?;
        let base = file.parent().unwrap_or(Path::new(""));
        config.secrets().into_iter().for_each(|secret| secret.mean_from(base));
        config.sandbox.make_absolute(base)?;
        config.egress.make_absolute(base)?;
        Ok(config)
    }

    /// Every secret that is named.
    fn secrets(&mut self) -> Vec<&mut SecretRef> {
        let tokens = self.tenant.iter_mut().flat_map(|tenant| &mut tenant.tokens).map(|token| &mut token.key);
        let mut all: Vec<_> = tokens.collect();
        all.extend(self.upstream.iter_mut().filter_map(|upstream| upstream.api_key.as_mut()));
        all.extend(self.egress.secrets());
        all.extend(self.store.secret());
        all.extend(self.vault.secrets());
        all
    }

    fn parse(text: &str) -> Result<Self> {
        let described = |error: toml::de::Error| anyhow::anyhow!(mistake::describe(&error, text));
        let mut config: Self = toml::from_str(text).map_err(described)?;
        config.document = toml::from_str(text).map_err(described)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.sandbox.run_as == 0 {
            bail!("[sandbox] run_as = 0: nothing of Palisade may run as root");
        }
        self.sandbox.check()?;
        self.http.connections().map(drop)?;
        self.egress.check()?;
        self.vault.check()?;
        self.cors.check()?;
        if self.upstream.is_empty() && !self.model.is_empty() {
            bail!("there are [model] entries and no [[upstream]] that could serve them");
        }
        if !self.upstream.is_empty() && self.model.is_empty() {
            bail!("there is an [[upstream]] and no [model.\"…\"] entry that uses it");
        }
        for (name, seconds) in [
            ("[inference] head_timeout_s", self.inference.head_timeout_s),
            ("[inference] idle_timeout_s", self.inference.idle_timeout_s),
            ("[inference] call_timeout_s", self.inference.call_timeout_s),
            ("[client_tools] timeout_s", self.client_tools.timeout_s),
        ] {
            if seconds == 0 {
                bail!("{name} = 0: nothing could answer in no time");
            }
        }
        if self.sessions.idle_s == 0 {
            bail!("[sessions] idle_s = 0: a session would end before its first answer could be read");
        }
        self.upstream.iter().try_for_each(UpstreamSection::check)?;
        for (name, model) in &self.model {
            let PriceSection { input, output, cache_read } = model.price;
            if [input, output, cache_read].iter().any(|usd| !usd.is_finite() || *usd < 0.0) {
                bail!(
                    "model {name:?} has a price that is none; write dollars for a million tokens, as in price = {{ input = 0.30, output = 5.0 }}"
                );
            }
        }
        for (at, tenant) in self.tenant.iter().enumerate() {
            if self.tenant[..at].iter().any(|other| other.name == tenant.name) {
                bail!("there are two tenants named {:?}", tenant.name.as_str());
            }
            for host in &tenant.hosts {
                if self.tenant[..at].iter().any(|other| other.hosts.contains(host)) {
                    bail!("the host {host:?} belongs to two tenants");
                }
            }
            tenant.limits.check(&tenant.name)?;
            tenant.check()?;
            tenant.egress.check(&tenant.name)?;
        }
        palisade_egress::Policy::build(&self.egress_policy()?).context("[egress] or [tenant.egress]")?;
        self.credits.check(self)?;
        self.ledgers().map(drop)?;
        Ok(())
    }
}

/// The file as text. People save it in every way that editors know.
fn text_of(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|error| {
        let cure = match error.kind() {
            std::io::ErrorKind::IsADirectory => "it is a folder; name the file in it",
            std::io::ErrorKind::NotFound => "there is no such file; is the path right?",
            std::io::ErrorKind::PermissionDenied => "let the user that starts the server read it",
            _ => "look at the path that --config names",
        };
        anyhow::Error::new(error).context(cure)
    })?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        bail!("it is UTF-16 or no text at all; save it as UTF-8");
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("line {line}: a character there is not UTF-8; save the file as UTF-8 (it may be in Windows-1252 or Latin-1)")
    })
}

impl UpstreamSection {
    fn check(&self) -> Result<()> {
        let (name, url) = (&self.name, self.base_url.trim_end_matches('/'));
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!(
                "[[upstream]] {name:?}: base_url begins with http:// or https://, as in http://127.0.0.1:11434/v1"
            );
        }
        if let Some(call) =
            ["/chat/completions", "/completions", "/models"].iter().find(|call| url.ends_with(*call))
        {
            bail!(
                "[[upstream]] {name:?}: base_url ends before {call}, which every call adds itself; leave that away"
            );
        }
        Ok(())
    }
}

/// The server's own folders, and those of a few sessions.
const WORKSPACE_FILES_MIN: u64 = 100;

impl TenantSection {
    fn check(&self) -> Result<()> {
        let name = self.name.as_str();
        if self.tokens.is_empty() {
            bail!("tenant {name:?} has no tokens, so nobody could use it");
        }
        for (at, token) in self.tokens.iter().enumerate() {
            if self.tokens[..at].iter().any(|other| other.id == token.id) {
                bail!("tenant {name:?} has two tokens with the id {:?}", token.id);
            }
        }
        let is_host =
            |host: &String| palisade_egress::HostName::parse(host).is_ok_and(|it| it.as_str() == host);
        if let Some(host) = self.hosts.iter().find(|host| !is_host(host)) {
            bail!("tenant {name:?} has the host {host:?}: a name in small letters, without a port");
        }
        if let Some((_, twice)) =
            self.locked.iter().enumerate().find(|(at, folder)| self.locked[..*at].contains(folder))
        {
            bail!("tenant {name:?} locks {:?} twice", twice.path().to_string());
        }
        if self.upload_mb == Some(0) {
            bail!("tenant {name:?} has upload_mb = 0, so no file could be uploaded");
        }
        if self.workspace_gb.is_some_and(|gb| !gb.is_finite() || gb <= 0.0) {
            bail!("tenant {name:?} has a workspace_gb in which no file would have room");
        }
        if self.workspace_files.is_some_and(|files| files < WORKSPACE_FILES_MIN) {
            bail!(
                "tenant {name:?} has workspace_files = {}: sessions themselves need some, {WORKSPACE_FILES_MIN} at least",
                self.workspace_files.unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl SandboxSection {
    /// A shell and what holds the sandbox need something to live on.
    fn check(&self) -> Result<()> {
        const MEMORY_MB_MIN: u64 = 64;
        const PIDS_MIN: u64 = 16;
        const CPUS_MIN: f64 = 0.05;
        if self.memory_mb < MEMORY_MB_MIN {
            bail!("[sandbox] memory_mb = {}: nothing runs in less than {MEMORY_MB_MIN}", self.memory_mb);
        }
        if self.pids < PIDS_MIN {
            bail!("[sandbox] pids = {}: nothing runs with fewer than {PIDS_MIN}", self.pids);
        }
        if !(CPUS_MIN..=1024.0).contains(&self.cpus) {
            bail!("[sandbox] cpus = {}: from {CPUS_MIN} to 1024 are possible", self.cpus);
        }
        Ok(())
    }

    /// For each sandbox.
    pub(crate) fn limits(&self) -> palisade_sandbox::Limits {
        let memory_bytes = self.memory_mb.saturating_mul(1024 * 1024);
        palisade_sandbox::Limits { memory_bytes, pids: self.pids, cpus: self.cpus }
    }

    /// Paths are meant from where the configuration lies, whatever the folder the server was started in.
    fn make_absolute(&mut self, base: &Path) -> Result<()> {
        let absolute = |path: &Path| {
            std::path::absolute(base.join(path))
                .with_context(|| format!("the path {} in [sandbox] cannot be made absolute", path.display()))
        };
        self.runtime = absolute(&self.runtime)?;
        if let Some(hand) = &mut self.hand {
            *hand = absolute(hand)?;
        }
        if self.rootfs != "host-usr" {
            let path = absolute(Path::new(&self.rootfs))?;
            self.rootfs = path.into_os_string().into_string().map_err(|path| {
                anyhow::anyhow!("the path {} in [sandbox] rootfs is not UTF-8", path.display())
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_understood() {
        let config = Config::parse(
            r#"
            listen = "127.0.0.1:8080"
            data_dir = "palisade-data"

            [[upstream]]
            name = "local"
            dialect = "openai-chat"
            base_url = "http://127.0.0.1:9911/v1"
            api_key = "env:UPSTREAM_KEY"

            [model."pokee-isaac"]
            upstream = ["local"]
            upstream_model = "gpt-x"
            price = { input = 0.30, output = 5.0, cache_read = 0.10 }

            [[tenant]]
            name = "acme"
            mode = "standard"
            default_model = "pokee-isaac"
            client_model_selection = true
            tokens = [{ id = "default", key = "env:ACME_KEY" }]
            memory = "shared"
            locked = [".pokee", "skills"]
            upload_mb = 100
            workspace_gb = 100
            workspace_files = 1000000
            limits = { concurrent_sessions = 20, turns_per_hour = 300 }
            ledger = "acme"
            credits = { mode = "soft", balance = 100000 }

            [credits]
            usd_per_credit = 0.01

            [sessions]
            idle_s = 300
            "#,
        )
        .unwrap();
        assert_eq!(config.tenant[0].name.as_str(), "acme");
        assert_eq!((config.tenant[0].limits.concurrent_sessions, config.sessions.idle_s), (20, 300));
        assert_eq!(Vec::from(config.model["pokee-isaac"].upstream.clone()), ["local"]);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error =
            format!("{:#}", Config::parse("listen = \"127.0.0.1:1\"\n\n[sandbox]\nrunas = 5\n").unwrap_err());
        assert!(error.contains("line 4") && error.contains("runas"), "{error}");
    }

    #[test]
    fn what_could_not_work_is_refused() {
        for (text, said) in [
            ("[sandbox]\nrun_as = 0", "root"),
            ("[model.m]\nupstream = \"u\"\nupstream_model = \"x\"", "[[upstream]]"),
            ("[[tenant]]\nname = \"a\"\ntokens = []", "no tokens"),
            (
                "[[tenant]]\nname = \"a\"\nhosts = [\"A.example:80\"]\ntokens = [{id = \"t\", key = \"env:X\"}]",
                "A.example",
            ),
            ("[[tenant]]\nname = \"A B\"\ntokens = []", "tenant name"),
            ("[[tenant]]\nname = \"a\"\ntokens = [{id = \"t\", key = \"pk_a_literal\"}]", "env:NAME"),
            ("listen = \"8080\"", "listen"),
            ("[store]\nurl = \"mysql://u:secret@h/d\"", "postgres://"),
            ("[vault]\nkey = \"env:A\"\npassphrase = \"env:B\"", "[vault]"),
            ("[vault]\nkey = \"0123456789abcdef\"", "env:NAME"),
            ("[sessions]\nidle_s = 0", "idle_s"),
            ("[http]\nidle_s = 0", "[http] idle_s"),
            ("[http]\ntrusted_peers = [\"balancer\"]", "10.0.0.0/8"),
            ("[sandbox]\nmemory_mb = 10", "memory_mb"),
            ("[sandbox]\npids = 3", "pids"),
            ("[sandbox]\ncpus = 0.0", "cpus"),
            ("[sandbox]\ncpus = nan", "cpus"),
            ("[inference]\nhead_timeout_s = 0", "head_timeout_s"),
            ("[inference]\nidle_timeout_s = 0", "idle_timeout_s"),
            ("[inference]\ncall_timeout_s = 0", "call_timeout_s"),
            ("[client_tools]\ntimeout_s = 0", "[client_tools] timeout_s"),
            (
                "[[tenant]]\nname = \"a\"\nupload_mb = 0\ntokens = [{id = \"t\", key = \"env:X\"}]",
                "upload_mb = 0",
            ),
            (
                "[[tenant]]\nname = \"a\"\nlocked = [\"a/b\"]\ntokens = [{id = \"t\", key = \"env:X\"}]",
                "\"a/b\" cannot be locked",
            ),
            (
                "[[tenant]]\nname = \"a\"\nlocked = [\"x\", \"x\"]\ntokens = [{id = \"t\", key = \"env:X\"}]",
                "twice",
            ),
            (
                "[[tenant]]\nname = \"a\"\nworkspace_files = 5\ntokens = [{id = \"t\", key = \"env:X\"}]",
                "workspace_files",
            ),
            (
                "[[tenant]]\nname = \"a\"\nworkspace_gb = 0\ntokens = [{id = \"t\", key = \"env:X\"}]",
                "workspace_gb",
            ),
            (
                "[[tenant]]\nname = \"a\"\ntokens = [{id = \"t\", key = \"env:X\"}, {id = \"t\", key = \"env:Y\"}]",
                "two tokens with the id \"t\"",
            ),
            ("[[tenant]]\nname = \"a\"\ntokens = []\nlimits = { concurrent_sessions = 0 }", "no sessions"),
        ] {
            let error = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn no_error_repeats_what_may_be_a_secret() {
        const SECRET: &str = "pk_acme_0123456789abcdef";
        let tenant = |tokens: &str| format!("[[tenant]]\nname = \"a\"\ntokens = {tokens}\n");
        for text in [
            tenant(&format!("[{{ id = \"t\", key = \"{SECRET}\" }}]")),
            tenant(&format!("[{{ id = \"t\", key = {SECRET} }}]")),
            tenant(&format!("[{{ id = \"t\", key = [\"{SECRET}\"] }}]")),
            tenant(&format!("[{{ id = \"t\", key = {{ value = \"{SECRET}\" }} }}]")),
            tenant(&format!("[{{ id = \"t\", kee = \"{SECRET}\" }}]")),
            tenant(&format!("[\"{SECRET}, expected nothing\"]")),
            tenant(&format!("\"{SECRET}\"")),
            tenant(&format!("[{{ id = \"t\", key = \"{SECRET} }}]")),
            format!("[[upstream]]\nname = \"u\"\ndialect = \"d\"\nbase_url = \"b\"\napi_key = \"{SECRET}\""),
        ] {
            let error = format!("{:?}", Config::parse(&text).expect_err(&text));
            assert!(error.contains("line ") && !error.contains(SECRET), "{text}: {error}");
        }
        for number in ["4815162342", "48151.62342", "4815-01-06"] {
            let error = format!(
                "{:?}",
                Config::parse(&tenant(&format!("[{{ id = \"t\", key = {number} }}]"))).expect_err(number)
            );
            assert!(error.contains("line 3") && !error.contains(number), "{error}");
        }
    }

    #[test]
    fn sandbox_paths_are_meant_from_the_files_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("palisade.toml");
        std::fs::write(&file, "[sandbox]\nruntime = \"r\"\nrootfs = \"image/root\"\nhand = \"./hand\"\n")
            .unwrap();
        let sandbox = Config::load(Some(&file)).unwrap().sandbox;
        assert_eq!(sandbox.runtime, folder.path().join("r"));
        assert_eq!(Path::new(&sandbox.rootfs), folder.path().join("image/root"));
        assert_eq!(sandbox.hand, Some(folder.path().join("hand")));
        std::fs::write(&file, "[sandbox]\nruntime = \"/opt/r\"\n").unwrap();
        let sandbox = Config::load(Some(&file)).unwrap().sandbox;
        assert_eq!((sandbox.runtime, sandbox.rootfs.as_str()), (PathBuf::from("/opt/r"), "host-usr"));
    }
}

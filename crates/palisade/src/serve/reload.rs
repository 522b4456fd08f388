//! SIGHUP: the configuration is read again, what can change while the server runs is put in force as a whole, and what needs a
//! restart is named. A file with a mistake changes nothing. No value is ever logged, only the names of settings.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use palisade_inference::Catalog;
use palisade_runtime::Runtime;
use palisade_vault::Keys;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::egress::OperatorPolicy;
use super::keys::Admission;
use super::models::{self, Upstreams};
use crate::config::{Config, changes};

/// SIGHUP, waited for from here on.
pub(crate) fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("listening for SIGHUP")
}

/// What the configuration in force was read from, and the parts that can be changed.
pub(crate) struct Reload {
    pub(crate) file: Option<PathBuf>,
    /// The text in force, as a table.
    pub(crate) document: toml::Table,
    pub(crate) policy: OperatorPolicy,
    /// A proxy of its own has no tenants to serve.
    pub(crate) server: Option<ServerPart>,
}

/// The server's own part.
pub(crate) struct ServerPart {
    pub(crate) runtime: Runtime,
    pub(crate) data_dir: PathBuf,
    /// The models that are served, which a restart alone changes.
    pub(crate) catalog: Catalog,
    pub(crate) default_model: String,
    /// Those in force, to be compared with.
    pub(crate) keys: Keys,
}

/// What a reload did.
#[derive(Debug, Default)]
struct Done {
    changed: Vec<String>,
    needs_restart: Vec<String>,
    without_effect: Vec<String>,
    connections_closed: usize,
}

impl Reload {
    /// Reads again at each SIGHUP, until told to stop.
    pub(crate) async fn keep(mut self, mut hangups: Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                _ = hangups.recv() => {}
                () = stop.cancelled() => return,
            }
            match self.read_again().await {
                Ok(done) => tell(&done),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the configuration was not read again: the old one stays");
                }
            }
        }
    }

    async fn read_again(&mut self) -> Result<Done> {
        let Some(file) = &self.file else { bail!("the server was started without --config") };
        let mut config = Config::load(Some(file)).map_err(|error| match is_refused(&error) {
            true => error.context(unreadable()),
            false => error,
        })?;
        let mut done = Done::default();
        let is_server = self.server.is_some();
        for change in changes::between(&self.document, &config.document) {
            match change.effect(is_server) {
                changes::Effect::Now => done.changed.push(change.name()),
                changes::Effect::AfterRestart => done.needs_restart.push(change.name()),
                changes::Effect::Never => done.without_effect.push(change.name()),
            }
        }
        // Everything is read and checked before the first part is changed.
        let secrets = || if is_server { "reading the secrets again" } else { "reading the keys again" };
        let upstreams = Upstreams::read(&config).map_err(refused_hint).with_context(secrets)?;
        let spec = self.policy.prepare(&config)?;
        if let Some(server) = &mut self.server {
            config.data_dir.clone_from(&server.data_dir);
            let admission = Admission::read(&config).map_err(refused_hint).with_context(secrets)?;
            let admission = admission.complete(&config)?;
            models::check_defaults(&config, &server.catalog)
                .context("[model] entries come into force with a restart")?;
            done.changed.extend(admission.keys.differing(&server.keys).map(|token| format!("{token} (key)")));
            let settings = super::settings(&config, admission.keys.clone(), &server.default_model)?;
            server.runtime.reload(settings).await?;
            server.keys = admission.keys;
        }
        let applied = self.policy.apply(spec, upstreams.credentials())?;
        done.connections_closed = applied.connections_closed;
        done.changed.extend(applied.new_keys.into_iter().map(|name| format!("upstream.{name} (key)")));
        // What needs a restart stays in the list until there is one.
        let waiting = std::mem::take(&mut self.document);
        self.document = changes::in_force(waiting, config.document, is_server);
        Ok(done)
    }
}

/// One line each, for people and for what collects logs.
fn tell(done: &Done) {
    let Done { changed, needs_restart, without_effect, connections_closed } = done;
    let said = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
    tracing::info!(changed = said, connections_closed, "the configuration was read again");
    if !needs_restart.is_empty() {
        tracing::warn!(
            settings = needs_restart.join(", "),
            "these settings were changed in the file and NEED A RESTART; until then the old values hold"
        );
    }
    if !without_effect.is_empty() {
        tracing::warn!(
            settings = without_effect.join(", "),
            "these settings only say what a ledger is opened with; `palisade admin credits` changes one that is there"
        );
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    let of_io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    of_io.into_iter().any(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn refused_hint(error: anyhow::Error) -> anyhow::Error {
    if is_refused(&error) { error.context(unreadable()) } else { error }
}

fn unreadable() -> String {
    format!(
        "the server gave up root at its start and is uid {} now; let that user read the file, or restart",
        rustix::process::getuid().as_raw()
    )
}

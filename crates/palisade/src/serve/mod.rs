//! `palisade serve`: from a configuration to a server that answers, and back down again on SIGTERM.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod egress;
mod hello;
pub(crate) mod install;
pub(crate) mod keys;
mod listener;
pub(crate) mod logging;
pub(crate) mod models;
mod policy;
pub(crate) mod reload;
pub(crate) mod vault;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_egress::{BucketSpec, PassKey};
use palisade_gateway::HttpConfig;
use palisade_protocol::TenantName;
use palisade_protocol::limits::{UPLOAD_BYTES_MAX, WORKSPACE_BYTES_MAX, WORKSPACE_FILES_MAX};
use palisade_runtime::{
    Amount, BundledSkill, EgressConfig, MemoryMode, Network, Runtime, RuntimeConfig, Settings, StoreUrl,
    TenantConfig, TenantMode, VaultSource, threads_max,
};
use palisade_sandbox::{Cgroups, Rootfs, SandboxConfig, SandboxFactory};
use palisade_vault::Keys;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LimitsSection, Memory, Mode, TenantSection, address, locked_by_default};
use install::Installed;
use keys::Admission;
use reload::Reload;

/// How long running turns have to reach a durable point after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// What is left of the proxy's connections after that has ended; what remains is recorded and cut.
const PROXY_GRACE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// The configuration; without it everything is at its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything durable is kept [default: palisade-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = address::parse)]
    listen: Option<SocketAddr>,
    /// How to log; json when standard error is not a terminal
    #[arg(long, value_enum)]
    log_format: Option<logging::LogFormat>,
}

/// Runs the server until it is told to stop.
pub(crate) fn serve(args: ServeArgs) -> Result<()> {
    let mut config = Config::load(args.config.as_deref())?;
    config.data_dir = args.data_dir.unwrap_or(config.data_dir);
    config.listen = args.listen.unwrap_or(config.listen);
    logging::start(args.log_format).context("starting the log")?;
    // As root, if that is what we are: secrets are read, folders made, programs put where the uid can reach them.
    let admission = Admission::read(&config)?;
    let upstreams = models::Upstreams::read(&config)?;
    let pass_key = egress::read_key(&config.egress)?;
    let bucket = egress::read_bucket(&config.egress)?;
    let store = config.store.url()?;
    let vault = vault::VaultKey::read(&config)?;
    let port = listener::Taken::take("listen", config.listen)?;
    let metrics_port = listener::take_metrics(&config)?;
    account::prepare_data_dir(&mut config)?;
    let installed = install::install(&config)?;
    let cgroups = account::prepare_cgroups(&config);
    account::give_up_root(&config)?;
    account::close_memory()?;
    account::raise_open_files()?;
    // From here on we are nobody special, and may start threads.
    logging::start_writing();
    let admission = admission.complete(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(threads_max(config.tenant.len()))
        .enable_all()
        .build()
        .context("starting the executor")?;
    let sandboxes = sandbox(&config, &installed, cgroups);
    let file = args.config;
    runtime.block_on(run(Prepared {
        config,
        file,
        port,
        metrics_port,
        store,
        vault,
        admission,
        upstreams,
        pass_key,
        bucket,
        installed,
        sandboxes,
    }))
}

/// What was read and made while that was still possible.
struct Prepared {
    config: Config,
    file: Option<PathBuf>,
    port: listener::Taken,
    metrics_port: Option<listener::Taken>,
    store: Option<StoreUrl>,
    vault: vault::VaultKey,
    admission: Admission,
    upstreams: models::Upstreams,
    pass_key: Option<PassKey>,
    bucket: Option<BucketSpec>,
    installed: Installed,
    sandboxes: SandboxConfig,
}

async fn run(prepared: Prepared) -> Result<()> {
    let Prepared {
        config,
        file,
        port,
        metrics_port,
        store,
        vault,
        admission,
        upstreams,
        pass_key,
        bucket,
        installed,
        sandboxes,
    } = prepared;
    // From here on it asks for the configuration to be read again, and does not end the server.
    let hangups = reload::hangups()?;
    try_a_sandbox(&sandboxes).await?;
    let listener = port.listen()?;
    let metrics_listener = metrics_port.map(listener::Taken::listen).transpose()?;
    let address = listener.local_addr()?;
    let upstreams = upstreams.or_planner().await?;
    let source = VaultSource::default();
    let asked = egress::VaultOf::ThisServer(source.clone());
    let egress = egress::Egress::start(&config, &upstreams, pass_key, bucket, asked).await?;
    let way_out = egress.way_out();
    let models = models::start(&config, upstreams, &way_out).await?;
    let default_model = models.default_model.clone();
    let (catalog, keys) = (models.router.catalog().clone(), admission.keys);
    let runtime = Runtime::start(RuntimeConfig {
        data_dir: config.data_dir.clone(),
        store,
        settings: settings(&config, keys.clone(), &default_model)?,
        demo_planner: models.is_demo_planner,
        router: models.router,
        sandbox: sandboxes,
        egress: EgressConfig { way_out: way_out.clone(), lends: egress::lends(&config), vault: source },
        bundled_skills: load_skills(&installed),
        vault: vault.into_config(&config, &way_out).await?,
    })
    .await?;
    // Whoever reads that it listens may stop it at once.
    let stop = stop_signal()?;
    count_lost_lines(&runtime);
    hello::say(address, &admission.shown, models.is_demo_planner).await;
    let data_dir = config.data_dir.clone();
    let connections = HttpConfig { origins: config.cors.origins.clone(), ..config.http.connections()? };
    let server = reload::ServerPart {
        runtime: runtime.clone(),
        data_dir: data_dir.clone(),
        catalog,
        default_model,
        keys,
    };
    let (document, policy) = (config.document, egress.policy());
    let reload = Reload { file, document, policy, server: Some(server) };
    keep_running(
        Running { runtime, listener, connections, metrics_listener, data_dir, egress, reload, hangups },
        stop,
    )
    .await
}

/// A server that answers.
struct Running {
    runtime: Runtime,
    listener: TcpListener,
    connections: HttpConfig,
    metrics_listener: Option<TcpListener>,
    data_dir: PathBuf,
    egress: egress::Egress,
    reload: Reload,
    hangups: Signal,
}

/// Serves until it is told to stop, and ends in good order.
async fn keep_running(server: Running, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let Running { runtime, listener, connections, metrics_listener, data_dir, egress, reload, hangups } =
        server;
    let (draining, drain) = (runtime.clone(), CancellationToken::new());
    let begun = drain.clone();
    let stopping = async move {
        stop.await;
        tracing::info!("stopping: no new turns, running ones reach a durable point");
        begun.cancel();
    };
    let drained = async {
        drain.cancelled().await;
        tokio::time::timeout(DRAIN_MAX, draining.drain()).await
    };
    let way_out = egress.way_out();
    let ((), drained, (), (), (), ()) = tokio::join!(
        palisade_gateway::serve(listener, runtime.clone(), connections, stopping),
        drained,
        admin::serve(runtime.clone(), data_dir),
        egress.keep(drain.clone()),
        reload.keep(hangups, drain.clone()),
        listener::serve_metrics(metrics_listener, runtime.clone(), drain.clone()),
    );
    egress::shut_down(&way_out, PROXY_GRACE).await;
    let drained =
        drained.with_context(|| format!("running work did not end within {} s", DRAIN_MAX.as_secs()))?;
    drained.context(
        "the database could not be reached while the server stopped; whichever server reaches it next goes on with the \
         turns that ran here",
    )?;
    tracing::info!("stopped");
    Ok(())
}

fn count_lost_lines(runtime: &Runtime) {
    if let Some(lost) = logging::lost() {
        let told = "Log lines that were lost because standard error did not take them";
        runtime.metrics().with_registry(|registry| registry.register("log_lines_lost", told, lost));
    }
}

/// SIGTERM, as from a supervisor, or SIGINT, as from a keyboard.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The part of the configuration that can be read again while the server runs.
fn settings(config: &Config, keys: Keys, default_model: &str) -> Result<Settings> {
    let tenants = match config.tenant.is_empty() {
        true => vec![default_tenant(default_model)?],
        false => config.tenant.iter().map(|section| tenant(section, default_model)).collect::<Result<_>>()?,
    };
    Ok(Settings {
        tenants,
        keys,
        usd_per_credit: config.credits.usd_per_credit,
        ledgers: config.ledgers()?,
        client_tool_timeout_s: config.client_tools.timeout_s,
        events_retention_s: config.events.retention_s,
        session_idle_s: config.sessions.idle_s,
    })
}

fn default_tenant(default_model: &str) -> Result<TenantConfig> {
    let limits = LimitsSection::default();
    Ok(TenantConfig {
        name: TenantName::parse(keys::DEFAULT_TENANT)?,
        hosts: Vec::new(),
        mode: TenantMode::Standard,
        network: Network::Public,
        default_model: default_model.to_owned(),
        client_model_selection: true,
        memory: MemoryMode::Shared,
        locked: locked_by_default(),
        upload_bytes_max: UPLOAD_BYTES_MAX,
        storage_max: Amount { bytes: WORKSPACE_BYTES_MAX, files: WORKSPACE_FILES_MAX },
        concurrent_sessions_max: limits.concurrent_sessions,
        turn_timeout_s: limits.turn_timeout_s,
        session_ttl_s: limits.session_ttl_s,
        session_ttl_max_s: limits.session_ttl_max_s,
        rate: limits.rate(),
        ledger: None,
    })
}

fn tenant(section: &TenantSection, default_model: &str) -> Result<TenantConfig> {
    let limits = &section.limits;
    Ok(TenantConfig {
        name: section.name.clone(),
        hosts: section.hosts.clone(),
        mode: match section.mode {
            Mode::Standard => TenantMode::Standard,
            Mode::Offline => TenantMode::Offline,
        },
        network: match (&section.egress.allow, section.mode) {
            (Some(hosts), _) => Network::Hosts(hosts.clone()),
            (None, Mode::Standard) => Network::Public,
            (None, Mode::Offline) => Network::None,
        },
        default_model: section.default_model.clone().unwrap_or_else(|| default_model.to_owned()),
        client_model_selection: section.client_model_selection,
        memory: match section.memory {
            Memory::Shared => MemoryMode::Shared,
            Memory::Scoped => MemoryMode::Scoped,
            Memory::Off => MemoryMode::Off,
        },
        locked: section.locked.clone(),
        upload_bytes_max: section.upload_mb.map_or(UPLOAD_BYTES_MAX, |mb| mb.saturating_mul(1024 * 1024)),
        // Fractions are for small disks; a float's size is cut at the type's end.
        storage_max: Amount {
            bytes: section.workspace_gb.map_or(WORKSPACE_BYTES_MAX, |gb| (gb * (1_u64 << 30) as f64) as u64),
            files: section.workspace_files.unwrap_or(WORKSPACE_FILES_MAX),
        },
        concurrent_sessions_max: limits.concurrent_sessions,
        turn_timeout_s: limits.turn_timeout_s,
        session_ttl_s: limits.session_ttl_s,
        session_ttl_max_s: limits.session_ttl_max_s,
        rate: limits.rate(),
        ledger: section.ledger()?,
    })
}

/// A server without sandboxes could do nothing but refuse, and nothing is ever run outside of one.
async fn try_a_sandbox(config: &SandboxConfig) -> Result<()> {
    let told =
        "no sandbox can be made here, so the server does not start; `palisade doctor` looks at every part";
    let factory = SandboxFactory::new(config.clone()).context(told)?;
    let tried = palisade_sandbox::probe(&factory).await.context(told);
    factory.shutdown().await;
    tried.map(drop)
}

fn python_packages(config: &Config) -> Option<PathBuf> {
    let folder = config.sandbox.runtime.join("python");
    folder.is_dir().then_some(folder)
}

fn sandbox(config: &Config, installed: &Installed, cgroups: Cgroups) -> SandboxConfig {
    if python_packages(config).is_none() {
        tracing::warn!(
            runtime = %config.sandbox.runtime.display(),
            "the sandbox's Python packages are not there, so document skills will not work; deploy/runtime.sh installs them"
        );
    }
    sandbox_config(config, installed.hand.clone(), cgroups)
}

/// How sandboxes are made by this configuration, with the hand at a place that the uid can reach.
pub(crate) fn sandbox_config(config: &Config, hand: PathBuf, cgroups: Cgroups) -> SandboxConfig {
    SandboxConfig {
        hand,
        bwrap: PathBuf::from("bwrap"),
        rootfs: match config.sandbox.rootfs.as_str() {
            "host-usr" => Rootfs::HostUsr,
            path => Rootfs::Path(path.into()),
        },
        python_packages: python_packages(config),
        limits: config.sandbox.limits(),
        cgroups,
    }
}

fn load_skills(installed: &Installed) -> Vec<BundledSkill> {
    let mut skills = Vec::new();
    for dir in &installed.skills {
        match BundledSkill::load(dir.clone()) {
            Ok(skill) => skills.push(skill),
            Err(why) => tracing::error!(skill = %dir.display(), why, "bundled skill skipped"),
        }
    }
    skills
}

//! `palisade egress`: the proxy as a process of its own, for deployments in which it alone has a route to the world. It has the upstreams' keys, the
//! operator's policy and the log; the servers that pass connections to it have none of these, and lend it their vault.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use palisade_egress::{BucketSpec, PassKey};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::serve::reload::{self, Reload};
use crate::serve::{account, egress, logging, models, stop_signal};

/// What connections may still take after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = "\
The configuration needs, for this process:

  [egress]
  listen = \"0.0.0.0:3128\"        # or unix:/run/palisade/egress.sock
  key = \"file:/etc/palisade/egress.key\"

and for each server that goes through it the same key with via = \"ADDRESS\" instead of listen.
It attaches the upstreams' keys. Servers on the same machine, which come over a unix: socket, lend it their vault for as long as
they run; over the network it attaches no credentials of the vault.
SIGHUP reads the policy and the keys of upstreams again; SIGTERM stops.")]
pub(crate) struct EgressArgs {
    /// The configuration: [egress], the upstreams and the tenants' lists
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the audit log is kept [default: palisade-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How to log; json when standard error is not a terminal
    #[arg(long, value_enum)]
    log_format: Option<logging::LogFormat>,
}

/// Runs the proxy until it is told to stop.
pub(crate) fn egress(args: EgressArgs) -> Result<()> {
    let mut config = Config::load(Some(&args.config))?;
    config.data_dir = args.data_dir.unwrap_or(config.data_dir);
    logging::start(args.log_format).context("starting the log")?;
    let Some(key) = egress::read_key(&config.egress)?.filter(|_| config.egress.listen.is_some()) else {
        bail!("[egress] needs listen and key for a proxy of its own; see --help");
    };
    let upstreams = models::Upstreams::read(&config)?;
    let bucket = egress::read_bucket(&config.egress)?;
    account::prepare_data_dir(&mut config)?;
    account::give_up_root(&config)?;
    account::raise_open_files()?;
    logging::start_writing();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the executor")?;
    runtime.block_on(run(config, args.config, key, upstreams, bucket))
}

async fn run(
    config: Config,
    file: PathBuf,
    key: PassKey,
    upstreams: models::Upstreams,
    bucket: Option<BucketSpec>,
) -> Result<()> {
    let stop = stop_signal()?;
    let hangups = reload::hangups()?;
    let vault = egress::VaultOf::OtherServers;
    let egress = egress::Egress::start(&config, &upstreams, Some(key), bucket, vault).await?;
    let (document, policy) = (config.document, egress.policy());
    let reload = Reload { file: Some(file), document, policy, server: None };
    let (way_out, stopping) = (egress.way_out(), CancellationToken::new());
    let stopped = async {
        stop.await;
        tracing::info!("stopping: no new connections, open ones come to their end");
        stopping.cancel();
        egress::shut_down(&way_out, GRACE).await;
    };
    tokio::join!(egress.keep(stopping.clone()), reload.keep(hangups, stopping.clone()), stopped);
    tracing::info!("stopped");
    Ok(())
}

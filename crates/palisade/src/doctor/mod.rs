//! `palisade doctor`: every precondition of a server by name, what is weaker than it should be, and how to mend it. It
//! looks with the eyes of the uid that the server takes, and at last makes a sandbox the way the server does.
//!
//! It must change nothing that is not its own, and never call something good that it has not seen.

mod checks;
mod door;
mod system;

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_sandbox::{Cgroups, Probed, SandboxFactory};
use rustix::process::getuid;
use serde::Serialize;

use crate::config::Config;
use crate::serve::{account, egress, install, sandbox_config};

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// The configuration; without it everything is at its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory that the server is to use
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// How one precondition stands. The order is that of gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// The server runs, less protected or able to do less than it should.
    Weaker,
    /// The server does not start.
    Broken,
}

/// One precondition.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), mend: None }
    }

    fn weaker(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, state: State::Weaker, found: found.into(), mend: Some(mend.into()) }
    }

    fn broken(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, state: State::Broken, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Looks, tells, and answers with the exit code.
pub(crate) fn doctor(args: &DoctorArgs) -> ExitCode {
    let checks = look(args).unwrap_or_else(|error| {
        vec![Check::broken(
            "configuration",
            format!("{error:#}"),
            "correct it, or name another with --config",
        )]
    });
    let worst = checks.iter().map(|check| check.state).max().unwrap_or(State::Good);
    tell(&checks, worst, args.json);
    match worst {
        State::Good => ExitCode::SUCCESS,
        State::Broken => ExitCode::from(1),
        State::Weaker => ExitCode::from(2),
    }
}

fn look(args: &DoctorArgs) -> Result<Vec<Check>> {
    let mut config = Config::load(args.config.as_deref())?;
    if let Some(data_dir) = &args.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    config.data_dir = std::path::absolute(&config.data_dir).context("the data directory")?;
    let mut checks = vec![checks::user(&config), checks::bubblewrap()];
    // What only root can do, as the server does it.
    let is_root = getuid().is_root();
    let uid = if is_root { config.sandbox.run_as } else { getuid().as_raw() };
    let cgroups = Cgroups::prepare(uid);
    let hand = lend_hand(&config, uid);
    let secrets = door::secrets(&config);
    let key = egress::read_key(&config.egress);
    account::become_uid(&config)?;

    checks.extend(system::checks());
    checks.push(checks::cgroups(&cgroups));
    checks.push(checks::open_files());
    checks.push(checks::data_dir(&config.data_dir, is_root));
    checks.extend(checks::headroom(&config.data_dir));
    checks.extend(checks::runtime(&config));
    checks.extend(try_sandbox(&config, cgroups, hand));
    checks.push(secrets);
    checks.extend(door::checks(&config, key));
    Ok(checks)
}

/// The hand, copied to where the uid can reach it; removed with the value.
struct LentHand {
    folder: PathBuf,
}

impl LentHand {
    fn path(&self) -> PathBuf {
        self.folder.join("palisade-hand")
    }
}

impl Drop for LentHand {
    fn drop(&mut self) {
        // In a folder for what is temporary, and a megabyte at most.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn lend_hand(config: &Config, uid: u32) -> Result<LentHand> {
    let bytes = install::read_hand(config)?;
    let folder = std::env::temp_dir().join(format!("palisade-doctor-{}", std::process::id()));
    let copying = || format!("copying the hand to {}", folder.display());
    std::fs::create_dir(&folder).with_context(copying)?;
    let lent = LentHand { folder: folder.clone() };
    std::fs::write(lent.path(), bytes).with_context(copying)?;
    for path in [&lent.path(), &folder] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).with_context(copying)?;
        if getuid().is_root() {
            chown(path, Some(uid), Some(uid)).with_context(copying)?;
        }
    }
    Ok(lent)
}

/// The hand, and the one look that counts.
fn try_sandbox(config: &Config, cgroups: Cgroups, hand: Result<LentHand>) -> Vec<Check> {
    let hand = match hand {
        Ok(hand) => hand,
        Err(error) => {
            let mend = "build it with `cargo xtask build`, or say where it is with [sandbox] hand";
            return vec![Check::broken("hand", format!("{error:#}"), mend)];
        }
    };
    let mut checks = vec![checks::hand(&hand.path())];
    match make_sandbox(config, cgroups, &hand.path()) {
        Ok(Probed { landlock_abi }) => {
            checks.push(checks::landlock(landlock_abi));
            checks.push(Check::good("sandbox", "one was made, ran a command, and is gone"));
        }
        Err(error) => {
            let mend = "see what else is broken or weaker here; no server starts without";
            checks.push(Check::broken("sandbox", format!("{error:#}"), mend));
        }
    }
    checks
}

fn make_sandbox(config: &Config, cgroups: Cgroups, hand: &Path) -> Result<Probed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let factory = SandboxFactory::new(sandbox_config(config, hand.to_owned(), cgroups))?;
    runtime.block_on(async {
        let probed = palisade_sandbox::probe(&factory).await;
        factory.shutdown().await;
        Ok(probed?)
    })
}

/// Nobody can be told when standard output takes nothing.
fn tell(checks: &[Check], worst: State, json: bool) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(told(checks, worst, json).as_bytes()).and_then(|()| out.flush());
}

fn told(checks: &[Check], worst: State, json: bool) -> String {
    if json {
        return format!("{}\n", serde_json::json!({ "state": worst, "checks": checks }));
    }
    let mut told = String::new();
    for check in checks {
        let sign = match check.state {
            State::Good => "good   ",
            State::Weaker => "weaker ",
            State::Broken => "broken ",
        };
        told += &format!("{sign} {:<18} {}\n", check.name, check.found);
        if let Some(mend) = &check.mend {
            told += &format!("{:26} to mend: {mend}\n", "");
        }
    }
    told + match worst {
        State::Good => "everything is as it should be\n",
        State::Weaker => "the server starts; what is weaker than it should be is marked\n",
        State::Broken => "the server does not start here; what is broken is marked\n",
    }
}

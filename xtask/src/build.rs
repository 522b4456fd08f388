//! Builds the server, and the hand as a static binary of its own (decision 28).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Static, and at a fixed place: a program that moves itself writes to 270 KB of its own pages first, in each sandbox and
/// at each file operation. What that would hide is worth little here: the hand counts as taken over (SECURITY.md).
const HAND_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";
/// Static linking needs the target named: without it the flags would reach proc macros, which cannot be static.
const HAND_TARGET: &str = "x86_64-unknown-linux-gnu";

#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// Without optimisation
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Where the programs are.
pub(crate) struct Built {
    pub(crate) palisade: PathBuf,
}

/// Builds both, and puts the hand beside the server, where it is looked for.
pub(crate) fn build(args: &BuildArgs) -> Result<Built> {
    let hand = build_hand()?;
    let mut command = cargo(&["build", "--package", "palisade"]);
    // Said, because CARGO_TARGET_DIR would put it where nobody looks for it.
    command.arg("--target-dir").arg(root().join("target"));
    if !args.debug {
        command.arg("--release");
    }
    run(&mut command)?;
    let folder = root().join("target").join(if args.debug { "debug" } else { "release" });
    replace(&hand, &folder.join("palisade-hand"))?;
    Ok(Built { palisade: folder.join("palisade") })
}

/// Builds the hand; it ends up at `target/hand/palisade-hand`.
pub(crate) fn build_hand() -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "the sandbox's executor is made for x86_64 only, and this machine is {}",
            std::env::consts::ARCH
        );
    }
    let folder = root().join("target/hand");
    let mut command = cargo(&["build", "--release", "--package", "palisade-hand", "--target", HAND_TARGET]);
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", HAND_FLAGS);
    run(&mut command)?;
    let built = folder.join(HAND_TARGET).join("release/palisade-hand");
    let hand = folder.join("palisade-hand");
    replace(&built, &hand)?;
    Ok(hand)
}

/// Copies by rename: the old file may be running.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let copying = || format!("copying {} to {}", from.display(), to.display());
    if std::fs::read(from).with_context(copying)? == std::fs::read(to).unwrap_or_default() {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(copying)?;
    }
    let new = to.with_extension("new");
    std::fs::copy(from, &new).with_context(copying)?;
    std::fs::rename(&new, to).with_context(copying)
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Runs a command that shows its own output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    say(&format!("$ {}", shown(command)));
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(program)
        .chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Progress, for people.
#[expect(clippy::print_stderr, reason = "this is a tool for people")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

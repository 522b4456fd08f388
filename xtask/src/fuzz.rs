//! `cargo xtask fuzz`: the targets of `fuzz/`, each for a while. What they check is what `cargo nextest` checks in short; here
//! libFuzzer looks for what nobody thought of, and keeps what it learnt in `target/fuzz`.

use anyhow::{Context as _, Result};

use crate::build::{cargo, root, run, say};

const TARGETS: [&str; 4] = ["path_resolver", "hand_protocol", "egress", "scrubber"];
/// Of memory, in MB.
const MEMORY_MB_MAX: u32 = 4096;

/// Look for faults with libFuzzer
#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// For each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) seconds: u32,
    /// One target; all without
    pub(crate) target: Option<String>,
}

/// Fails with the first fault, whose input is kept.
pub(crate) fn fuzz(args: &FuzzArgs) -> Result<()> {
    let there = cargo(&["fuzz", "--version"]).output().context("starting cargo")?.status.success();
    if !there {
        run(&mut cargo(&["install", "--locked", "cargo-fuzz"]))?;
    }
    let kept = root().join("target/fuzz");
    let all = TARGETS.iter().copied().filter(|name| args.target.as_deref().is_none_or(|it| it == *name));
    for target in all {
        let (corpus, artifacts) = (kept.join("corpus").join(target), kept.join("artifacts").join(target));
        for folder in [&corpus, &artifacts] {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        say(&format!("{target}, for {} s", args.seconds));
        // No sanitizer: the code that it would look at is safe, and without one the usual compiler will do.
        let mut fuzz = cargo(&["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "fuzz", target]);
        fuzz.arg(&corpus).env("CARGO_TARGET_DIR", kept.join("build")).arg("--").args([
            format!("-max_total_time={}", args.seconds),
            format!("-rss_limit_mb={MEMORY_MB_MAX}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-verbosity=0".to_owned(),
            "-print_funcs=0".to_owned(),
            "-print_final_stats=1".to_owned(),
        ]);
        run(&mut fuzz).with_context(|| format!("its input is in {}", artifacts.display()))?;
    }
    Ok(())
}

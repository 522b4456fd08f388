//! Puts what sandboxes need where the server's uid can reach it: the hand and the bundled skills, below
//! `<data>/runtime/<hash>/`. Started as root, these stay root's: the server cannot change them, but the folder above
//! is its own, so it could put others in their place, or a link. Hence root must never write through a path below
//! `<data>`: only into a folder that it holds open and has seen to be a real one of root's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rust_embed::RustEmbed;

use crate::config::Config;

/// The bundled skills, as they were when this program was built; their tests stay out.
#[derive(RustEmbed)]
#[folder = "../../skills"]
#[exclude = "*/tests/*"]
#[exclude = "*/__pycache__/*"]
#[exclude = "*.sh"]
struct Skills;

/// Where everything is.
pub(crate) struct Installed {
    pub(crate) hand: PathBuf,
    pub(crate) skills: Vec<PathBuf>,
}

/// Installs once per content: a folder that is there is whole.
pub(crate) fn install(config: &Config) -> Result<Installed> {
    let hand = read_hand(config)?;
    let runtime = config.data_dir.join("runtime");
    let name = content_hash(&hand);
    let dir = runtime.join(&name);
    let installing = || format!("installing into {}", dir.display());
    match fs::create_dir(&runtime) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(installing);
        }
        _ => {}
    }
    let held = hold(&runtime)?;
    // The open folder, whatever becomes of its name.
    let inside = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    let finished = inside.join(&name);
    if finished.symlink_metadata().is_err() {
        let unfinished = inside.join(format!("unfinished-{}", std::process::id()));
        write_all(&unfinished, &hand).with_context(installing)?;
        // The way down to it, too.
        held.set_permissions(fs::Permissions::from_mode(0o755)).with_context(installing)?;
        match fs::rename(&unfinished, &finished) {
            Ok(()) => {}
            // Another server of this data directory was quicker.
            Err(_) if finished.is_dir() => fs::remove_dir_all(&unfinished).with_context(installing)?,
            Err(error) => return Err(error).with_context(installing),
        }
    }
    hold(&dir)?;
    let names: BTreeSet<String> =
        Skills::iter().filter_map(|path| path.split('/').next().map(str::to_owned)).collect();
    let skills = names.into_iter().map(|name| dir.join("skills").join(name)).collect();
    Ok(Installed { hand: dir.join("palisade-hand"), skills })
}

/// Opens a folder that is no link and belongs to root, or to this server where it was not started as root.
fn hold(dir: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(dir);
    let held = opened.with_context(|| {
        format!("{} must be a folder that can be read, and no link; remove it and start again", dir.display())
    })?;
    let owner = held.metadata().with_context(|| format!("looking at {}", dir.display()))?.uid();
    let own = rustix::process::getuid().as_raw();
    if owner != 0 && owner != own {
        bail!("{} belongs to uid {owner} and not to {own}; remove it and start again", dir.display());
    }
    Ok(held)
}

/// Where it is before it is installed.
fn hand_path(config: &Config) -> Result<PathBuf> {
    match &config.sandbox.hand {
        Some(path) => Ok(path.clone()),
        None => Ok(std::env::current_exe().context("finding this program")?.with_file_name("palisade-hand")),
    }
}

/// The program itself.
pub(crate) fn read_hand(config: &Config) -> Result<Vec<u8>> {
    let path = hand_path(config)?;
    fs::read(&path).with_context(|| {
        format!(
            "the sandbox's executor {} cannot be read; it is built by `cargo xtask build`, and [sandbox] hand says where it is",
            path.display()
        )
    })
}

/// Of everything that will be installed, names and bytes.
fn content_hash(hand: &[u8]) -> String {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hash.update(hand);
    for path in Skills::iter() {
        hash.update(path.as_bytes());
        if let Some(file) = Skills::get(&path) {
            hash.update(&(file.data.len() as u64).to_le_bytes());
            hash.update(&file.data);
        }
    }
    hash.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_all(dir: &Path, hand: &[u8]) -> Result<()> {
    let skills = dir.join("skills");
    fs::create_dir_all(&skills)?;
    let program = dir.join("palisade-hand");
    fs::write(&program, hand)?;
    for path in Skills::iter() {
        let Some(file) = Skills::get(&path) else { continue };
        let target = skills.join(path.as_ref());
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.data)?;
    }
    open_to_read(dir)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Whatever the umask was: folders can be entered and files read by everybody.
fn open_to_read(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => open_to_read(&entry.path())?,
            false => fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?,
        }
    }
    Ok(())
}

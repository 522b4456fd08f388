//! Whom the server runs as: never root. Started as root, it makes its folder, gives it to the configured uid, and
//! becomes that uid for good before the first thread.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Gid, Uid, getuid};

use crate::config::Config;

/// Makes the data directory, closed to everybody else, and its path absolute.
pub(crate) fn prepare_data_dir(config: &mut Config) -> Result<()> {
    let dir = &config.data_dir;
    let making = || format!("making the data directory {}", dir.display());
    if !dir.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(making)?;
    }
    let dir = dir.canonicalize().with_context(making)?;
    let found = std::fs::metadata(&dir).with_context(making)?;
    if getuid().is_root() && found.uid() != config.sandbox.run_as {
        if found.uid() != 0 {
            bail!(
                "the data directory {} belongs to uid {}, and the server runs as {}; chown it, or set [sandbox] run_as",
                dir.display(),
                found.uid(),
                config.sandbox.run_as
            );
        }
        std::os::unix::fs::chown(&dir, Some(config.sandbox.run_as), Some(config.sandbox.run_as))
            .with_context(|| format!("giving {} to uid {}", dir.display(), config.sandbox.run_as))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).with_context(making)?;
    }
    config.data_dir = dir;
    Ok(())
}

/// Becomes the configured uid, and makes sure that it can work.
pub(crate) fn give_up_root(config: &Config) -> Result<()> {
    if getuid().is_root() {
        let (uid, gid) = (Uid::from_raw(config.sandbox.run_as), Gid::from_raw(config.sandbox.run_as));
        let becoming = || format!("becoming uid {}", config.sandbox.run_as);
        // Groups first: the right to change them goes with the uid. There is one thread yet, so this is the process.
        rustix::thread::set_thread_groups(&[]).with_context(becoming)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).with_context(becoming)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).with_context(becoming)?;
    }
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    check_reachable(&config.data_dir)
}

fn check_reachable(dir: &Path) -> Result<()> {
    use rustix::fs::{Access, access};
    let Err(error) = access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) else { return Ok(()) };
    Err(error).with_context(|| {
        format!(
            "uid {} cannot work in the data directory {}: choose another with --data-dir (as root, say \
             /var/lib/palisade), or open the folders above it with chmod o+x",
            getuid().as_raw(),
            dir.display()
        )
    })
}

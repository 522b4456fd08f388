//! Full segments, compressed beside the log's writing. A kill at any step leaves each record in exactly one readable file, or in two
//! that say the same.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use super::segment::{PACKED, PLAIN, Segment, segments};

/// zstd's own default: records repeat themselves, and more effort finds little more.
const LEVEL: i32 = 3;
const UNFINISHED: &str = ".tmp";

/// Compresses what is full whenever it is told to look; ends with the sender.
pub(super) fn start(folder: PathBuf) -> io::Result<(mpsc::SyncSender<()>, JoinHandle<()>)> {
    // One that waits says all that there is to say.
    let (look, looks) = mpsc::sync_channel(1);
    let packer = std::thread::Builder::new().name("egress-audit-pack".into()).spawn(move || {
        while looks.recv().is_ok() {
            if let Err(error) = pack_all(&folder) {
                tracing::error!(%error, folder = %folder.display(), "a full audit segment was not compressed; it stays as it is");
            }
        }
    })?;
    Ok((look, packer))
}

/// Compresses every full segment that is not, and takes away what an earlier end has left.
pub(super) fn pack_all(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        // Packed has all of it from the moment it has its name.
        let has_twin = name.ends_with(&format!(".{PLAIN}")) && path.with_extension(PACKED).exists();
        if has_twin || name.ends_with(UNFINISHED) {
            std::fs::remove_file(&path)?;
        }
    }
    for segment in segments(folder)?.into_iter().filter(|segment| !segment.is_packed()) {
        pack(folder, &segment)?;
    }
    Ok(())
}

/// The plain file goes when the other is on the disk under its name.
fn pack(folder: &Path, segment: &Segment) -> io::Result<()> {
    let packed = segment.path.with_extension(PACKED);
    let unfinished = PathBuf::from(format!("{}{UNFINISHED}", packed.display()));
    let mut into = zstd::stream::write::Encoder::new(File::create(&unfinished)?, LEVEL)?;
    io::copy(&mut File::open(&segment.path)?, &mut into)?;
    into.finish()?.sync_all()?;
    std::fs::rename(&unfinished, &packed)?;
    File::open(folder)?.sync_all()?;
    std::fs::remove_file(&segment.path)
}

/// A segment's lines, packed or not, or packed since it was listed.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let is_plain = path.extension().is_some_and(|extension| extension == PLAIN);
    match File::open(path) {
        Err(error) if is_plain && error.kind() == io::ErrorKind::NotFound => {
            open(&path.with_extension(PACKED))
        }
        file if is_plain => Ok(Box::new(BufReader::new(file?))),
        file => Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::new(file?)?))),
    }
}

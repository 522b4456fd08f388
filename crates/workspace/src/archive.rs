//! A directory as one zip. It is measured before the first byte leaves, so that what is too large is refused
//! with an answer and not with a broken stream; while streaming the same bounds hold again, because the
//! directory may change.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Take, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_beneath::{Kind, Metadata, Root};
use palisade_protocol::WorkspacePath;
use palisade_protocol::scope::Scope;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use crate::tree::{self, Leaf, LeftOut, WalkError};
use crate::{Workspace, WorkspaceError, list};

/// Entries of one archive. With these two bounds no archive needs the Zip64 form, which some readers lack.
pub const ARCHIVE_ENTRIES_MAX: usize = 50_000;
/// Content of one archive before compression, in bytes; a sparse file counts with its full length.
pub const ARCHIVE_BYTES_MAX: u64 = 4_000_000_000;
/// A piece of an archive is given out once it has so many bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Read of a file in one step, in bytes.
const STEP_BYTES: u64 = 64 * 1024;
/// Steps for one piece: what is read for it, and how long it holds a thread, is bounded however well it packs.
const PIECE_STEPS_MAX: usize = 32;

/// A directory that fits into an archive.
#[derive(Debug)]
pub struct Archive {
    root: Root,
    base: PathBuf,
    path: WorkspacePath,
    leaves: Vec<Leaf>,
    left_out: LeftOut,
}

impl Workspace {
    /// Measures the directory at `path` for an archive of it; [`Archive::into_pieces`] then makes it.
    pub fn archive(&self, scope: &Scope, path: &WorkspacePath) -> Result<Archive, WorkspaceError> {
        let place = self.readable(scope, path)?;
        let over = |bound| WorkspaceError::ArchiveTooLarge { path: path.clone(), bound };
        let node = place
            .root
            .look_up(place.below())
            .map_err(|error| WorkspaceError::from_io("opening", path, error))?;
        if node.metadata().kind != Kind::Directory {
            return Err(WorkspaceError::NotDirectory(path.clone()));
        }
        let base = place.below().to_owned();
        let mut left_out = LeftOut::default();
        let walked =
            tree::walk_telling(&place.root, &base, ARCHIVE_ENTRIES_MAX, "50,000 entries", &mut left_out);
        let leaves = walked.map_err(|error| match error {
            WalkError::Over(bound) => over(bound),
            WalkError::Io(error) => WorkspaceError::from_io("listing", path, error),
        })?;
        let bytes = leaves.iter().filter(|leaf| !leaf.is_directory).map(|leaf| leaf.metadata.size);
        if bytes.fold(0, u64::saturating_add) > ARCHIVE_BYTES_MAX {
            return Err(over("4,000,000,000 bytes"));
        }
        Ok(Archive { root: place.root, base, path: path.clone(), leaves, left_out })
    }
}

impl Archive {
    /// Begins to make it, piece by piece.
    pub fn into_pieces(self) -> ArchivePieces {
        let made = Made::default();
        let (zip, names) = (ZipWriter::new_stream(made.clone()), entry_names(&self.leaves));
        ArchivePieces { archive: self, names, next: 0, file: None, zip: Some(zip), made }
    }
}

/// An archive that is being made. A piece is made when somebody asks for it, so that whoever does not read on holds
/// memory and no thread.
pub struct ArchivePieces {
    archive: Archive,
    /// One for each leaf.
    names: Vec<String>,
    /// The leaf that comes next.
    next: usize,
    /// The rest of the file that is being packed.
    file: Option<Take<File>>,
    /// `None` once it is finished.
    zip: Option<ZipWriter<StreamWriter<Made>>>,
    made: Made,
}

impl ArchivePieces {
    /// The next bytes; `None` after the last. It works for a bounded time: a piece may be empty, where what was read
    /// has packed well. What vanished since the archive was measured is not in it; a file that grew is cut at its
    /// measured length. What had to be left out is named in a text at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, WorkspaceError> {
        let mut steps = 0;
        while steps < PIECE_STEPS_MAX && self.made.len() < PIECE_BYTES && self.zip.is_some() {
            self.step().map_err(|error| WorkspaceError::Archive(self.archive.path.clone(), error))?;
            steps += 1;
        }
        let piece = self.made.take();
        Ok((!piece.is_empty() || self.zip.is_some()).then_some(piece))
    }

    /// Packs so many bytes more of the file that is open, or begins the next one, or ends the archive.
    fn step(&mut self) -> io::Result<()> {
        let Some(zip) = &mut self.zip else { return Ok(()) };
        if let Some(file) = &mut self.file {
            if io::copy(&mut file.by_ref().take(STEP_BYTES), zip)? == 0 {
                self.file = None;
            }
            return Ok(());
        }
        let archive = &mut self.archive;
        let Some((leaf, name)) = archive.leaves.get(self.next).zip(self.names.get(self.next)) else {
            return self.finish();
        };
        self.next += 1;
        let options = options(&leaf.metadata);
        if leaf.is_directory {
            return zip.add_directory(name, options).map_err(io_error);
        }
        match archive.root.look_up(&archive.base.join(&leaf.path)).and_then(|node| node.open_file()) {
            Ok(file) => {
                zip.start_file(name, options).map_err(io_error)?;
                self.file = Some(file.take(leaf.metadata.size));
            }
            Err(error) if tree::is_gone(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                archive.left_out.push(leaf.path.clone(), "its permissions do not allow to read it");
            }
            Err(_) => archive.left_out.push(leaf.path.clone(), "it could not be opened"),
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(mut zip) = self.zip.take() else { return Ok(()) };
        if self.archive.left_out.count > 0 {
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(note_name(&self.names), options).map_err(io_error)?;
            zip.write_all(note(&self.archive.left_out).as_bytes())?;
        }
        zip.finish().map(drop).map_err(io_error)
    }
}

/// What was packed and not taken yet.
#[derive(Debug, Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl Made {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock())
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    // Bytes are whole after any panic.
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options(metadata: &Metadata) -> SimpleFileOptions {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(metadata.mode & 0o777);
    match dos_time(metadata) {
        Some(time) => options.last_modified_time(time),
        None => options,
    }
}

/// A zip knows the years 1980 to 2107, in UTC here because nobody said which zone.
fn dos_time(metadata: &Metadata) -> Option<zip::DateTime> {
    let second = i64::try_from(metadata.modified_ns / 1_000_000_000).ok()?;
    let at = jiff::Timestamp::from_second(second).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    let small = |number: i8| u8::try_from(number).ok();
    zip::DateTime::from_date_and_time(
        u16::try_from(at.year()).ok()?,
        small(at.month())?,
        small(at.day())?,
        small(at.hour())?,
        small(at.minute())?,
        small(at.second())?,
    )
    .ok()
}

/// A name for each leaf that unpacks to itself everywhere and that no other has. What can stand as it is keeps its name; what
/// cannot is percent-encoded, and where that is another one's name, it gets a number.
fn entry_names(leaves: &[Leaf]) -> Vec<String> {
    let parent = |leaf: &'_ Leaf| leaf.path.parent().unwrap_or(Path::new("")).to_owned();
    let own = |leaf: &'_ Leaf| leaf.path.file_name().unwrap_or_default().to_owned();
    let plain = leaves.iter().filter_map(|leaf| Some((parent(leaf), plain(&own(leaf))?.to_owned())));
    let mut taken: HashSet<(PathBuf, String)> = plain.collect();
    let mut folders: HashMap<&Path, String> = HashMap::new();
    let mut names = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        let (parent, own) = (parent(leaf), own(leaf));
        let own = plain_or_encoded(&own, |name| taken.insert((parent.clone(), name.to_owned())));
        let above = folders.get(parent.as_path()).map_or("", String::as_str);
        let name = format!("{above}{own}");
        if leaf.is_directory {
            folders.insert(&leaf.path, format!("{name}/"));
        }
        names.push(name);
    }
    names
}

fn plain_or_encoded(own: &OsStr, mut is_free: impl FnMut(&str) -> bool) -> String {
    if let Some(name) = plain(own) {
        return name.to_owned();
    }
    let encoded = list::percent(own);
    let mut numbered = (2..).map(|number: usize| format!("{encoded}~{number}"));
    let mut name = encoded.clone();
    while !is_free(&name) {
        name = numbered.next().unwrap_or_default();
    }
    name
}

/// The name, if every unpacker makes it again: it is UTF-8 without control characters, without the backslash that Windows
/// takes for a separator, and does not begin like one of its drives.
fn plain(name: &OsStr) -> Option<&str> {
    let text = name.to_str()?;
    let is_drive = text.as_bytes().get(1) == Some(&b':');
    (!is_drive && !text.contains(|c: char| c == '\\' || c.is_control())).then_some(text)
}

/// A name for the text at the end that nothing else at the top has.
fn note_name(names: &[String]) -> String {
    let mut name = "NOT IN THIS ARCHIVE.txt".to_owned();
    while names.contains(&name) {
        name.insert(0, '_');
    }
    name
}

fn note(left_out: &LeftOut) -> String {
    let mut text = "These were left out of the archive:\n\n".to_owned();
    for (path, why) in &left_out.named {
        let shown: Vec<String> = path.iter().map(|name| plain_or_encoded(name, |_| true)).collect();
        text.push_str(&format!("{}: {why}\n", shown.join("/")));
    }
    if left_out.count > left_out.named.len() {
        text.push_str(&format!("and {} more\n", left_out.count - left_out.named.len()));
    }
    text
}

fn io_error(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
    }
}

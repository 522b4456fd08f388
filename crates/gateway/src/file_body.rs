//! A file as a body. What the kernel has in memory is read where it is sent, so that it is still in the processor's cache
//! then; what it has not is read ahead on the tenant's share of the blocking threads. It sends exactly what was promised,
//! or ends with an error, which closes the connection.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use palisade_protocol::Error;
use palisade_runtime::Lane;
use rustix::io::{ReadWriteFlags, preadv2};

/// One read of a file, in bytes: so little that it stays in the cache, so much that system calls do not count. A body has
/// at most two of them at a time: one that is sent, and the next.
const CHUNK_BYTES: usize = 256 * 1024;

/// `length` bytes of the file from `first` on.
pub(crate) fn file_body(file: File, first: u64, length: u64, disk: Lane) -> Body {
    let source = Source { file: Arc::new(file), spare: Arc::default(), at: first, left: length, disk };
    Body::from_stream(stream::try_unfold((source, None), |(mut source, ahead)| async move {
        if ahead.is_none()
            && let Some(bytes) = source.read_in_memory()
        {
            return Ok(Some((bytes, (source, None))));
        }
        let Some(reading) = ahead.or_else(|| source.read_next()) else { return Ok(None) };
        let bytes = reading.await.map_err(io::Error::other)??;
        // The disk was waited for, and will be for more of this file: begun before these are sent.
        let ahead = source.read_next();
        Ok::<_, io::Error>(Some((bytes, (source, ahead))))
    }))
}

struct Source {
    file: Arc<File>,
    spare: Spare,
    at: u64,
    left: u64,
    /// The tenant's share of the threads.
    disk: Lane,
}

/// Buffers whose bytes have been sent.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

impl Source {
    /// The next bytes, where no disk is waited for.
    fn read_in_memory(&mut self) -> Option<Bytes> {
        let length = self.next_length()?;
        let mut lent = Lent::of(&self.spare);
        let mut parts = [IoSliceMut::new(&mut lent.buffer[..length])];
        let read = preadv2(&self.file, &mut parts, self.at, ReadWriteFlags::NOWAIT);
        if read != Ok(length) {
            return None;
        }
        self.advance(length);
        Some(Bytes::from_owner(lent).slice(..length))
    }

    fn next_length(&self) -> Option<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        (length > 0).then_some(length)
    }

    fn advance(&mut self, length: usize) {
        self.at += length as u64;
        self.left -= length as u64;
    }

    fn read_next(&mut self) -> Option<BoxFuture<'static, Result<io::Result<Bytes>, Error>>> {
        let length = self.next_length()?;
        let (file, at, disk) = (self.file.clone(), self.at, self.disk.clone());
        let mut lent = Lent::of(&self.spare);
        self.advance(length);
        let read = move || {
            // A file that has become shorter ends here: what was promised is not there any more.
            file.read_exact_at(&mut lent.buffer[..length], at)?;
            Ok(Bytes::from_owner(lent).slice(..length))
        };
        Some(disk.begin(read))
    }
}

/// A buffer that goes back when its bytes have been sent: fresh memory for each would cost more than the reading.
struct Lent {
    buffer: Vec<u8>,
    spare: Spare,
}

impl Lent {
    fn of(spare: &Spare) -> Self {
        let used = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { buffer: used.unwrap_or_else(|| vec![0; CHUNK_BYTES]), spare: spare.clone() }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

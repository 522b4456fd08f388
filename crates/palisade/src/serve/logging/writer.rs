//! The log's way out: a bounded buffer and a thread of its own behind it, so that the server serves whether or not anybody reads its
//! log. Who logs never waits and never fails. What finds no room, or cannot be written, is lost, counted, and told of once writing
//! works again.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

/// What may wait to be written, in bytes; as much again is with the thread that writes.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// What is written at once may not make the buffer keep more memory than this, in bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Where log lines go. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    /// A descriptor of our own: nobody who prints elsewhere holds a lock that the thread would wait for.
    out: OwnedFd,
    buffer: Mutex<Buffer>,
    changed: Condvar,
    lost: Counter,
}

#[derive(Default)]
struct Buffer {
    /// Whole lines.
    waiting: Vec<u8>,
    has_thread: bool,
    is_writing: bool,
}

impl LogWriter {
    /// Nothing is written before [`LogWriter::start`].
    pub(crate) fn new(out: OwnedFd) -> Self {
        let (buffer, changed, lost) = (Mutex::default(), Condvar::new(), Counter::default());
        Self { shared: Arc::new(Shared { out, buffer, changed, lost }) }
    }

    /// Lines that were lost.
    pub(crate) fn lost(&self) -> &Counter {
        &self.shared.lost
    }

    /// Starts the thread that writes, if there is none yet; each time lines were lost, and writing works again, `tell` is called with
    /// their number.
    pub(crate) fn start(&self, tell: fn(u64)) {
        if std::mem::replace(&mut self.shared.lock().has_thread, true) {
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        if thread.spawn(move || shared.write_on(tell)).is_err() {
            self.shared.lock().has_thread = false;
        }
    }

    /// Waits until everything is written, and no longer than this.
    pub(crate) fn finish(&self, wait_max: Duration) {
        self.start(|_| {});
        let is_busy = |buffer: &mut Buffer| buffer.is_writing || !buffer.waiting.is_empty();
        drop(self.shared.changed.wait_timeout_while(self.shared.lock(), wait_max, is_busy));
    }
}

impl Write for LogWriter {
    /// Takes a line or several, whole or not at all.
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        let mut buffer = self.shared.lock();
        if buffer.waiting.len() + lines.len() > WAITING_BYTES_MAX {
            self.shared.lost.inc_by(count(lines));
        } else {
            buffer.waiting.extend_from_slice(lines);
            self.shared.changed.notify_all();
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_on(&self, tell: fn(u64)) {
        let (mut lines, mut told, mut is_torn, mut works) = (Vec::new(), 0, false, true);
        let mut tell_lost = |works: bool| {
            let lost = self.lost.get();
            if works && lost > told {
                tell(lost - told);
                told = lost;
            }
        };
        loop {
            // Where there is room for it, or it would be lost itself.
            if self.lock().waiting.is_empty() {
                tell_lost(works);
            }
            self.take(&mut lines);
            tell_lost(works);
            if is_torn {
                lines.insert(0, b'\n');
            }
            let written = self.write_whole(&lines);
            let rest = &lines[written..];
            self.lost.inc_by(count(rest));
            // A line of which a part stands there already is ended before the next one begins.
            is_torn = match written {
                0 => is_torn,
                _ => lines[written - 1] != b'\n',
            };
            works = rest.is_empty();
        }
    }

    /// Waits for lines.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        lines.shrink_to(KEPT_BYTES_MAX);
        let mut buffer = self.lock();
        buffer.is_writing = false;
        self.changed.notify_all();
        let is_empty = |buffer: &mut Buffer| buffer.waiting.is_empty();
        let waited = self.changed.wait_while(buffer, is_empty);
        let mut buffer = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.waiting, lines);
        buffer.is_writing = true;
    }

    /// How much could be written. A pipe that is full is waited for, whether or not somebody made it non-blocking.
    fn write_whole(&self, lines: &[u8]) -> usize {
        use rustix::io::Errno;
        let mut written = 0;
        while written < lines.len() {
            match rustix::io::write(&self.out, &lines[written..]) {
                Ok(0) => break,
                Ok(bytes) => written += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room(),
                Err(_) => break,
            }
        }
        written
    }

    fn wait_for_room(&self) {
        use rustix::event::{PollFd, PollFlags, poll};
        // Whatever comes of it, the next write says.
        let _ = poll(&mut [PollFd::new(&self.out, PollFlags::OUT)], None);
    }

    // The buffer is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

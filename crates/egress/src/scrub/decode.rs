//! Undoing an answer's coding as it comes. Bounded: what one piece becomes may not be without end.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};

/// What one piece of a coded body may become, in bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest window that is kept of a zstd body, as a power of two: 8 MiB, which RFC 8878 asks decoders for.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BROTLI_BUFFER_BYTES: usize = 4096;
/// What zstd decodes into at a time, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// A body's coding.
pub(crate) enum Decoder {
    /// As it is.
    Identity,
    /// `gzip`.
    Gzip(MultiGzDecoder<Sink>),
    /// `deflate`, which is zlib's format.
    Deflate(ZlibDecoder<Sink>),
    /// `br`.
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink>>),
    /// `zstd`.
    Zstd(Box<Zstd>),
}

/// zstd's own decoder, because the one over a writer does not tell whether a frame came to its end.
pub(crate) struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    sink: Sink,
    /// What the frame still wants; 0 at its end.
    wanted: usize,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut decoder = zstd::stream::raw::Decoder::new()?;
        decoder.set_parameter(zstd::stream::raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        Ok(Self { decoder, sink: Sink::default(), wanted: 1 })
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        use zstd::stream::raw::Operation as _;
        let mut room = [0; PIECE_BYTES];
        loop {
            let status = self.decoder.run_on_buffers(bytes, &mut room)?;
            self.sink.write_all(&room[..status.bytes_written])?;
            self.wanted = status.remaining;
            bytes = &bytes[status.bytes_read..];
            // A full buffer may have more behind it.
            if bytes.is_empty() && status.bytes_written < room.len() {
                return Ok(());
            }
        }
    }

    fn finish(&self) -> io::Result<()> {
        if self.wanted == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Where decoded bytes gather.
#[derive(Default)]
pub(crate) struct Sink(Vec<u8>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > PIECE_BYTES_MAX {
            return Err(io::Error::other("a small piece becomes too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// For the values of `Content-Encoding`; `None` for what is not understood here, several codings at once included.
    pub(crate) fn of(codings: &[&[u8]]) -> Option<Self> {
        let coding = match codings {
            [] => return Some(Self::Identity),
            [one] => one.trim_ascii().to_ascii_lowercase(),
            _ => return None,
        };
        match coding.as_slice() {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip(MultiGzDecoder::new(Sink::default()))),
            b"deflate" => Some(Self::Deflate(ZlibDecoder::new(Sink::default()))),
            b"br" => {
                let writer =
                    brotli_decompressor::DecompressorWriter::new(Sink::default(), BROTLI_BUFFER_BYTES);
                Some(Self::Brotli(Box::new(writer)))
            }
            b"zstd" => Some(Self::Zstd(Box::new(Zstd::new().ok()?))),
            _ => None,
        }
    }

    /// What these bytes become.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => return Ok(bytes.to_vec()),
            // Flushed: what came out of the last piece goes on with it, and not with the next.
            Self::Gzip(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush())?,
            Self::Deflate(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush())?,
            Self::Brotli(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush())?,
            Self::Zstd(decoder) => decoder.write_all(bytes)?,
        }
        Ok(self.take())
    }

    /// The rest, if the coding came to its end.
    pub(crate) fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => return Ok(Vec::new()),
            Self::Gzip(decoder) => decoder.try_finish()?,
            Self::Deflate(decoder) => decoder.try_finish()?,
            Self::Brotli(decoder) => decoder.close()?,
            Self::Zstd(decoder) => decoder.finish()?,
        }
        Ok(self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        let sink = match self {
            Self::Identity => return Vec::new(),
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => &mut decoder.sink,
        };
        std::mem::take(&mut sink.0)
    }
}

//! Pages that unpack to more than they claim.
//!
//! The decoders of most codecs stop where the claimed size ends. Those of gzip, Brotli and LZ4's frames go on to the end of the
//! data, which may be a thousand times as long as the page, so the bytes are counted before.

use std::io::{self, Read};

use parquet::basic::Compression;

/// LZ4's frames begin so; its other two formats say their size themselves.
const LZ4_FRAME: &[u8] = &[0x04, 0x22, 0x4d, 0x18];

/// Refuses packed bytes that unpack to more than `claimed`; where they are damaged, their decoder says so.
///
/// # Errors
/// [`io::Error`] in words.
pub fn check(codec: Compression, packed: &[u8], claimed: u64) -> io::Result<()> {
    let n = match codec {
        Compression::GZIP(_) => count(flate2::read::MultiGzDecoder::new(packed), claimed),
        Compression::BROTLI(_) => count(brotli::Decompressor::new(packed, 1 << 16), claimed),
        Compression::LZ4 if packed.starts_with(LZ4_FRAME) => {
            count(lz4_flex::frame::FrameDecoder::new(packed), claimed)
        }
        _ => return Ok(()),
    };
    if n > claimed {
        return Err(io::Error::other(format!(
            "a page that unpacks to more than the {claimed} bytes it claims"
        )));
    }
    Ok(())
}

/// Bytes until the end, the first error or just over the limit.
fn count(reader: impl Read, limit: u64) -> u64 {
    let (mut reader, mut part, mut n) = (reader.take(limit.saturating_add(1)), vec![0; 1 << 16], 0);
    while let Ok(more @ 1..) = reader.read(&mut part) {
        n += more as u64;
    }
    n
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parquet::basic::{BrotliLevel, GzipLevel};

    use super::*;

    #[test]
    fn who_unpacks_to_more_than_claimed_is_refused_before_it_is_unpacked() {
        let zeros = vec![0; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&zeros).unwrap();
        let mut packed = Vec::new();
        let mut compressor = brotli::CompressorWriter::new(&mut packed, 4096, 1, 22);
        compressor.write_all(&zeros).unwrap();
        drop(compressor);
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&zeros).unwrap();
        for (codec, packed) in [
            (Compression::GZIP(GzipLevel::default()), gzip.finish().unwrap()),
            (Compression::BROTLI(BrotliLevel::default()), packed),
            (Compression::LZ4, lz4.finish().unwrap()),
        ] {
            assert!(packed.len() < 1 << 14, "{codec}: {}", packed.len());
            check(codec, &packed, 1 << 20).unwrap();
            let error = check(codec, &packed, (1 << 20) - 1).unwrap_err().to_string();
            assert!(error.contains("unpacks to more than the 1048575 bytes it claims"), "{codec}: {error}");
            check(codec, &packed[..packed.len() / 2], 1 << 20).unwrap();
        }
    }
}

//! Images as answers: without what they say of themselves, and in bounded memory.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::stream;
use tastemaker_data::set::decode;
use tastemaker_pages::Thumbnail;
use tokio::sync::Semaphore;

use super::plain;

/// Images read at once.
const READERS: usize = 2;

/// KiB of images that are being sent: those of a study as most are, and larger ones, which wait for each other alone.
const HELD_KIB: [u32; 2] = [64 << 10, 192 << 10];

/// KiB from which on an image is a large one.
const LARGE_KIB: u32 = 16 << 10;

/// What a client is handed at once.
const CHUNK: usize = 64 << 10;

/// Memory that images on their way to browsers may take together.
#[derive(Debug, Clone)]
pub struct ImageBudget {
    readers: Arc<Semaphore>,
    held: [Arc<Semaphore>; 2],
}

impl Default for ImageBudget {
    fn default() -> Self {
        let held = HELD_KIB.map(|kib| Arc::new(Semaphore::new(kib as usize)));
        Self { readers: Arc::new(Semaphore::new(READERS)), held }
    }
}

impl ImageBudget {
    /// A small image of an image, for lists.
    pub async fn send_small<E>(
        &self,
        read: impl FnOnce() -> Result<Vec<u8>, E> + Send + 'static,
    ) -> Response<Body>
    where
        E: std::error::Error + Send + 'static,
    {
        let Ok(_reader) = self.readers.acquire().await else { return gone() };
        let made = tokio::task::spawn_blocking(move || {
            let image = decode(&read().ok()?).ok()?;
            Thumbnail::new(&image).ok()
        });
        let Ok(Some(thumbnail)) = made.await else { return gone() };
        let mut response = Response::new(Body::from(thumbnail.bytes().to_vec()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(thumbnail.kind()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400"));
        response
    }

    /// An image as an answer, read when there is room. It may be kept for a day: its address says what it is.
    pub async fn send<E>(
        &self,
        read: impl Fn() -> Result<Vec<u8>, E> + Send + Sync + 'static,
    ) -> Response<Body>
    where
        E: std::error::Error + Send + 'static,
    {
        let read = Arc::new(move || read().map(|bytes| (kind(&bytes), stripped(bytes))));
        let Some((kind, bytes)) = self.read(&read).await else { return gone() };
        let kib = (bytes.len() / 1024 + 1) as u32;
        let large = usize::from(kib >= LARGE_KIB);
        let (room, kib) = (Arc::clone(&self.held[large]), kib.min(HELD_KIB[large]));
        let (held, bytes) = match Arc::clone(&room).try_acquire_many_owned(kib) {
            Ok(held) => (held, bytes),
            // Whoever waits for slow clients holds nothing meanwhile.
            Err(_) => {
                drop(bytes);
                let Ok(held) = room.acquire_many_owned(kib).await else { return gone() };
                let Some((_, bytes)) = self.read(&read).await else { return gone() };
                (held, bytes)
            }
        };
        let length = bytes.len();
        let whole = Bytes::from(bytes);
        let chunks = stream::unfold((whole, held), |(mut rest, held)| async move {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            (!chunk.is_empty()).then_some((Ok::<_, std::io::Error>(chunk), (rest, held)))
        });
        let mut response = Response::new(Body::from_stream(chunks));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable"));
        response
    }

    async fn read<E: Send + 'static>(
        &self,
        read: &Arc<impl Fn() -> Result<(Option<&'static str>, Vec<u8>), E> + Send + Sync + 'static>,
    ) -> Option<(&'static str, Vec<u8>)> {
        let _reader = self.readers.acquire().await.ok()?;
        let read = Arc::clone(read);
        let (kind, bytes) = tokio::task::spawn_blocking(move || read()).await.ok()?.ok()?;
        Some((kind?, bytes))
    }
}

fn gone() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "this image cannot be read\n")
}

fn kind(bytes: &[u8]) -> Option<&'static str> {
    match image::guess_format(bytes).ok()? {
        image::ImageFormat::Png => Some("image/png"),
        image::ImageFormat::Jpeg => Some("image/jpeg"),
        image::ImageFormat::WebP => Some("image/webp"),
        _ => None,
    }
}

/// An image without the texts in it, which name its model, its prompt and its settings. Pixels and colors stay byte for byte; what
/// is not understood stays as it is.
fn stripped(bytes: Vec<u8>) -> Vec<u8> {
    let without = match kind(&bytes) {
        Some("image/png") => png(&bytes),
        Some("image/jpeg") => jpeg(&bytes),
        Some("image/webp") => webp(&bytes),
        _ => None,
    };
    without.unwrap_or(bytes)
}

fn png(bytes: &[u8]) -> Option<Vec<u8>> {
    const SIGNATURE: usize = 8;
    const TEXTS: [&[u8]; 5] = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"];
    let mut kept = bytes.get(..SIGNATURE)?.to_vec();
    let mut rest = &bytes[SIGNATURE..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let whole = rest.get(..length.checked_add(12)?)?;
        if !TEXTS.contains(&&whole[4..8]) {
            kept.extend_from_slice(whole);
        }
        let ends = &whole[4..8] == b"IEND";
        rest = &rest[whole.len()..];
        if ends {
            break;
        }
    }
    Some(kept)
}

fn jpeg(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut kept = bytes.get(..2)?.to_vec();
    let mut rest = &bytes[2..];
    loop {
        let (&[0xff, marker], _) = rest.split_first_chunk::<2>()? else { return None };
        // From the first scan on there are no texts.
        if marker == 0xda {
            kept.extend_from_slice(rest);
            return Some(kept);
        }
        let length = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
        let whole = rest.get(..length.checked_add(2)?)?;
        // APP0 is JFIF, APP2 a color profile, APP14 says how colors are coded.
        let is_text =
            marker == 0xfe || ((0xe0..=0xef).contains(&marker) && ![0xe0, 0xe2, 0xee].contains(&marker));
        if !is_text {
            kept.extend_from_slice(whole);
        }
        rest = &rest[whole.len()..];
    }
}

fn webp(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut kept = bytes.get(..12)?.to_vec();
    let mut rest = &bytes[12..];
    while rest.len() >= 8 {
        let length = u32::from_le_bytes(rest[4..8].try_into().ok()?) as usize;
        let padded = length.checked_add(length % 2)?.checked_add(8)?;
        let whole = rest.get(..padded).unwrap_or(rest);
        if ![b"EXIF", b"XMP "].iter().any(|text| &whole[..4] == *text) {
            let at = kept.len();
            kept.extend_from_slice(whole);
            // Which chunks there are: without EXIF and XMP.
            if &whole[..4] == b"VP8X"
                && let Some(flags) = kept.get_mut(at + 8)
            {
                *flags &= !0x0c;
            }
        }
        rest = &rest[whole.len()..];
    }
    let size = (kept.len() as u32).checked_sub(8)?;
    kept[4..8].copy_from_slice(&size.to_le_bytes());
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/../../golden/images/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn texts_go_and_pixels_stay() {
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap();
        let mut png = golden("rgba.png");
        let text = b"\0\0\0\x07tEXtmodel\0a\x12\x34\x56\x78";
        png.splice(33..33, text.iter().copied());
        let mut jpeg = golden("420.jpg");
        let comment = b"\xff\xfe\0\x08model-";
        jpeg.splice(2..2, comment.iter().copied());
        let mut webp = golden("lossless.webp");
        webp.extend(b"EXIF\x06\0\0\0model-");
        for bytes in [png, jpeg, webp] {
            let less = stripped(bytes.clone());
            assert!(less.len() < bytes.len() && !less.windows(5).any(|word| word == b"model"));
            assert_eq!(pixels(&less), pixels(&bytes));
        }
        for name in ["exif-6.jpg", "cmyk.jpg", "lossy-alpha.webp", "palette.png", "animated.webp"] {
            assert_eq!(pixels(&stripped(golden(name))), pixels(&golden(name)), "{name}");
        }
    }

    #[test]
    fn what_is_damaged_stays_as_it_is() {
        for name in ["rgba.png", "420.jpg", "lossy.webp"] {
            let whole = golden(name);
            for end in (0..whole.len()).step_by(7) {
                stripped(whole[..end].to_vec());
            }
        }
        assert_eq!(stripped(b"GIF89a".to_vec()), b"GIF89a");
    }
}

//! The few protocol buffer messages that a board needs, encoded by hand: fields in the order of their numbers, what equals its
//! default skipped.

/// What opens every event file.
pub fn file_version(wall_time: f64) -> Vec<u8> {
    let mut event = event(wall_time, 0);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// Tells the reader that what earlier files hold from `step` on was never kept.
///
/// Source: `purge_step` of `torch.utils.tensorboard.SummaryWriter`; `SessionLog.START` of event.proto.
pub fn session_start(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = event(wall_time, step);
    let mut log = Vec::new();
    number(&mut log, 1, 1);
    bytes(&mut event, 7, &log);
    event
}

/// Several numbers at one step. The format keeps them as f32.
pub fn scalars<'a>(wall_time: f64, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, metric) in values {
        let mut value = tagged(tag);
        key(&mut value, 2, Wire::Fixed32);
        value.extend_from_slice(&(metric as f32).to_le_bytes());
        bytes(&mut summary, 1, &value);
    }
    with_summary(wall_time, step, &summary)
}

/// Height, width and channels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub height: u32,
    pub width: u32,
    pub channels: u32,
}

/// An encoded image.
pub fn image(wall_time: f64, step: u64, tag: &str, size: Size, encoded: &[u8]) -> Vec<u8> {
    let mut image = Vec::with_capacity(encoded.len() + 32);
    for (field, side) in [(1, size.height), (2, size.width), (3, size.channels)] {
        number(&mut image, field, u64::from(side));
    }
    bytes(&mut image, 4, encoded);
    let mut value = tagged(tag);
    bytes(&mut value, 4, &image);
    one_value(wall_time, step, &value)
}

/// A text in Markdown, under `tag/text_summary` as PyTorch's writer names it.
pub fn text(wall_time: f64, step: u64, tag: &str, markdown: &str) -> Vec<u8> {
    const DT_STRING: u64 = 7;
    let mut dimension = Vec::new();
    number(&mut dimension, 1, 1);
    let mut shape = Vec::new();
    bytes(&mut shape, 2, &dimension);
    let mut tensor = Vec::new();
    number(&mut tensor, 1, DT_STRING);
    bytes(&mut tensor, 2, &shape);
    bytes(&mut tensor, 8, markdown.as_bytes());

    let mut plugin = Vec::new();
    bytes(&mut plugin, 1, b"text");
    let mut metadata = Vec::new();
    bytes(&mut metadata, 1, &plugin);

    let mut value = tagged(&format!("{tag}/text_summary"));
    bytes(&mut value, 8, &tensor);
    bytes(&mut value, 9, &metadata);
    one_value(wall_time, step, &value)
}

fn event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, Wire::Fixed64);
    event.extend_from_slice(&wall_time.to_le_bytes());
    number(&mut event, 2, step);
    event
}

fn tagged(tag: &str) -> Vec<u8> {
    let mut value = Vec::new();
    bytes(&mut value, 1, tag.as_bytes());
    value
}

fn one_value(wall_time: f64, step: u64, value: &[u8]) -> Vec<u8> {
    let mut summary = Vec::with_capacity(value.len() + 8);
    bytes(&mut summary, 1, value);
    with_summary(wall_time, step, &summary)
}

fn with_summary(wall_time: f64, step: u64, summary: &[u8]) -> Vec<u8> {
    let mut event = event(wall_time, step);
    bytes(&mut event, 5, summary);
    event
}

/// How the bytes of a field are laid out.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

fn key(out: &mut Vec<u8>, field: u64, wire: Wire) {
    varint(out, field << 3 | wire as u64);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        key(out, field, Wire::Varint);
        varint(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, Wire::Bytes);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

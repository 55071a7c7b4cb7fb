//! An event file that grows with the run.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tastemaker_store::{StoreError, atomic};

use super::message::{self, Size};
use super::record::record;
use super::scalars::scalars;
use crate::{Event, RunError};

/// Where event files lie below `output_dir`, as the diffusers scripts have it: `logs/<name of the tracker>`.
pub const FOLDER: &str = "logs/tastemaker";

/// An event file open for appending. Each record is handed to the operating system whole before a call returns; a record
/// torn by a kill is skipped by TensorBoard.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    method: String,
}

impl Writer {
    /// Begins a new event file in `folder`, as TensorBoard expects of every process; earlier files stay.
    ///
    /// A resumed run gives `purge_step`: metrics that earlier files hold at this step of the board and after it are then
    /// not shown. After [`Start`](crate::Start) that is `start.step + 1`.
    ///
    /// # Errors
    /// [`RunError::Store`] if folder or file cannot be made or written.
    pub fn open(folder: impl AsRef<Path>, purge_step: Option<u64>) -> Result<Self, RunError> {
        let folder = folder.as_ref();
        atomic::create_folder(folder)?;
        let (path, file) = new_file(folder)?;
        let mut writer = Self { path, file, method: String::new() };
        writer.write(&message::file_version(now()))?;
        if let Some(step) = purge_step {
            writer.write(&message::session_start(now(), step))?;
        }
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what an event of the run has to show: [`SCALARS`](super::SCALARS), and alarms as text.
    ///
    /// # Errors
    /// [`RunError::Store`] if it cannot be written.
    pub fn event(&mut self, event: &Event) -> Result<(), RunError> {
        match event {
            Event::Start(start) => self.method.clone_from(&start.method),
            Event::Alarm(alarm) => self.text("alarms", alarm.step, &alarm.message)?,
            _ => {}
        }
        let Some((step, values)) = scalars(event, &self.method) else { return Ok(()) };
        self.write(&message::scalars(now(), step, values))
    }

    /// Writes one number, which the format keeps as f32.
    ///
    /// # Errors
    /// [`RunError::Store`] if it cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<(), RunError> {
        self.write(&message::scalars(now(), step, [(tag, value)]))
    }

    /// Writes an image, given as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`RunError::Image`] if they are something else, [`RunError::Store`] if it cannot be written.
    pub fn image_png(&mut self, tag: &str, step: u64, png: &[u8]) -> Result<(), RunError> {
        let size = png_size(png).ok_or_else(|| RunError::Image { tag: tag.to_owned() })?;
        self.write(&message::image(now(), step, tag, size, png))
    }

    /// Writes a text in Markdown.
    ///
    /// # Errors
    /// [`RunError::Store`] if it cannot be written.
    pub fn text(&mut self, tag: &str, step: u64, markdown: &str) -> Result<(), RunError> {
        self.write(&message::text(now(), step, tag, markdown))
    }

    fn write(&mut self, message: &[u8]) -> Result<(), RunError> {
        let written = self.file.write_all(&record(message));
        written.map_err(|e| StoreError::io("write", &self.path, e).into())
    }
}

/// Letters of a prompt that a tag shows.
const SHOWN: usize = 100;

/// The tags of the images of validation prompts, so many of each one after the other: `validation/<prompt>`, so that a prompt
/// at a seed keeps its place from one validation to the next. Numbers tell apart what would be called the same.
pub fn image_tags(prompts: &[String], n_images: usize) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for (prompt, number) in prompts.iter().zip(1..) {
        let words = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut shown: String = words.chars().take(SHOWN).collect();
        if shown.len() < words.len() {
            shown.push_str("...");
        }
        let tag = format!("validation/{shown}");
        let tag = if tags.contains(&tag) { format!("{tag} ({number})") } else { tag };
        tags.push(tag.clone());
        tags.extend((2..=n_images).map(|image| format!("{tag} #{image}")));
    }
    tags
}

/// A file whose name sorts behind those of earlier processes, which is the order TensorBoard reads them in.
fn new_file(folder: &Path) -> Result<(PathBuf, File), RunError> {
    let (seconds, process) = (now() as u64, std::process::id());
    let mut number = 0;
    loop {
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.tastemaker.{process}.{number}"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(StoreError::io("write", &path, e).into()),
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What the header of a PNG file says. Source: the PNG specification, section 11.2.1.
pub(super) fn png_size(png: &[u8]) -> Option<Size> {
    let header = png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let side = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let channels = match header.get(9)? {
        0 => 1,
        4 => 2,
        2 | 3 => 3,
        6 => 4,
        _ => return None,
    };
    Some(Size { width: side(0)?, height: side(4)?, channels })
}

//! Where events go: the log, TensorBoard, the caller, and the watch over the run's health.

use std::fs;
use std::io;
use std::mem;
use std::path::PathBuf;

use tastemaker_run::health::{Alarm, Limits, Watch};
use tastemaker_run::tensorboard::{Writer, image_tags};
use tastemaker_run::{Event, EventLog, Plan, RunDir, RunError, Tracker, read_events};
use tastemaker_store::StoreError;

use crate::TrainError;
use crate::data::cache::OnEvent;

/// Writes events to the log of a run, passes them on, and raises alarms.
pub(crate) struct Logger<'a> {
    log: Log,
    board: Option<Writer>,
    folder: PathBuf,
    /// Of the images of one validation.
    tags: Vec<String>,
    on_event: &'a mut OnEvent<'a>,
    pub(crate) watch: Watch,
}

/// Where the events of a run are written.
pub(crate) enum Log {
    /// On all ranks but the first.
    Nowhere,
    /// These will be, when the log of an earlier run has made way.
    Later(Vec<Event>),
    /// Here.
    Open(EventLog),
}

/// Opens the log of a run. Where the run does not resume, a log that is there is of an earlier attempt and is replaced, as its
/// results will be.
pub(crate) fn open_log(dir: &RunDir, resumes: bool) -> Result<EventLog, TrainError> {
    let path = dir.events_path();
    let removed = if resumes { Ok(()) } else { fs::remove_file(&path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(RunError::from(StoreError::io("write", &path, error)).into());
        }
        _ => {}
    }
    Ok(dir.event_log()?)
}

impl<'a> Logger<'a> {
    /// Writes to this log.
    pub(crate) fn new(log: Log, limits: Limits, on_event: &'a mut OnEvent<'a>) -> Self {
        let (folder, tags) = (PathBuf::new(), Vec::new());
        Self { log, board: None, folder, tags, on_event, watch: Watch::new(limits) }
    }

    /// Takes this log, and writes what came before it was there.
    pub(crate) fn open(&mut self, log: EventLog) -> Result<(), TrainError> {
        match mem::replace(&mut self.log, Log::Open(log)) {
            Log::Later(events) => events.iter().try_for_each(|event| self.log(event)),
            _ => Ok(()),
        }
    }

    /// Makes ready for the first step: opens TensorBoard's file, and replays what was logged before it to the watch.
    pub(crate) fn start(&mut self, dir: &RunDir, plan: &Plan, event: &Event) -> Result<(), TrainError> {
        let Event::Start(start) = event else { return Ok(()) };
        self.folder = dir.path().to_owned();
        let validation = &plan.validation;
        self.tags = image_tags(&validation.validation_prompts, validation.num_validation_images as usize);
        let purge_step = (start.step > 0).then_some(start.step + 1);
        if plan.logging.report_to == Tracker::Tensorboard && matches!(self.log, Log::Open(_)) {
            let folder = dir.path().join(&plan.logging.logging_dir).join(&plan.logging.tracker_name);
            let mut board = Writer::open(folder, purge_step)?;
            board.text("plan", start.step, &format!("```text\n{plan}```"))?;
            self.board = Some(board);
        }
        // Read before the start is logged, and the start added: other processes read while the first one writes.
        let replayed = match start.step {
            0 => None,
            _ => {
                let mut events = read_events(dir.events_path())?.events;
                events.push(event.clone());
                Some(Watch::replay(*self.watch.limits(), &events))
            }
        };
        self.record(event)?;
        if let Some(watch) = replayed {
            self.watch = watch;
        }
        Ok(())
    }

    /// Logs what is odd about a run before its first step.
    pub(crate) fn warn(&mut self, alarms: &[Alarm]) -> Result<(), TrainError> {
        alarms.iter().try_for_each(|alarm| self.emit(&Event::Alarm(alarm.raised())))
    }

    /// Passes on an event that is too frequent for the log.
    pub(crate) fn notify(&mut self, event: &Event) -> Result<(), TrainError> {
        (self.on_event)(event)
    }

    /// Logs an event that was passed on.
    pub(crate) fn log(&mut self, event: &Event) -> Result<(), TrainError> {
        match &mut self.log {
            Log::Nowhere => {}
            Log::Later(events) => events.push(event.clone()),
            Log::Open(log) => log.append(event)?,
        }
        Ok(())
    }

    /// Logs and passes on an event, and after it the alarms that are new. They are returned, too.
    pub(crate) fn record(&mut self, event: &Event) -> Result<Vec<Alarm>, TrainError> {
        self.emit(event)?;
        let alarms = self.watch.event(event);
        alarms.iter().try_for_each(|alarm| self.emit(&Event::Alarm(alarm.raised())))?;
        Ok(alarms)
    }

    fn emit(&mut self, event: &Event) -> Result<(), TrainError> {
        self.log(event)?;
        if let Some(board) = &mut self.board {
            board.event(event)?;
            if let Event::Images { step, paths } = event {
                for (path, tag) in paths.iter().zip(&self.tags) {
                    let full = self.folder.join(path);
                    let png =
                        fs::read(&full).map_err(|e| RunError::from(StoreError::io("read", &full, e)))?;
                    board.image_png(tag, *step, &png)?;
                }
            }
        }
        (self.on_event)(event)
    }
}

//! Streams of a device, and events on them: between the stream that exchanges tensors and the one that computes, and for the host to
//! wait for.

use std::ffi::{c_char, c_void};
use std::ptr;

use tch::Device;

use crate::shim::attempt;

/// A stream of the thread that made it; on the host, where everything happens at once, there is none.
pub(crate) struct Stream(Option<*mut c_void>);

impl Stream {
    /// Makes device and stream current on this thread: what it computes from now on goes there.
    pub(crate) fn enter(device: Device) -> Result<Self, String> {
        let Device::Cuda(index) = device else { return Ok(Self(None)) };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: a device that is not there is an error of libtorch.
        attempt(|error| unsafe { tastemaker_stream_enter(index as i64, error) })
            .map(|stream| Self(Some(stream)))
    }

    /// NCCL's name for it.
    pub(crate) fn handle(&self) -> Result<*mut c_void, String> {
        let Some(stream) = self.0 else { return Ok(ptr::null_mut()) };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the stream is alive.
        attempt(|error| unsafe { tastemaker_stream_handle(stream, error) })
    }

    /// Has it wait for an event before it does anything else.
    pub(crate) fn wait_for(&self, event: &Event) -> Result<(), String> {
        let (Some(stream), Some(event)) = (self.0, event.0) else { return Ok(()) };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: both are alive.
        attempt(|error| unsafe { tastemaker_event_block(event, stream, error) })?;
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            #[expect(unsafe_code, reason = "a call of the shim")]
            // SAFETY: the stream is alive, and nobody uses it after this.
            unsafe {
                tastemaker_stream_free(stream);
            }
        }
    }
}

/// A place in what a stream does; on the host it is always over.
#[derive(Debug)]
pub struct Event(Option<*mut c_void>);

#[expect(unsafe_code, reason = "events are made on one thread and waited for on another")]
// SAFETY: events of libtorch belong to no thread, and this one has no second handle.
unsafe impl Send for Event {}

impl Event {
    /// The place that the current stream of this thread has come to.
    ///
    /// # Errors
    /// libtorch's words.
    pub fn record(device: Device) -> Result<Self, String> {
        let Device::Cuda(index) = device else { return Ok(Self(None)) };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: a device that is not there is an error of libtorch.
        attempt(|error| unsafe { tastemaker_event_record(index as i64, error) })
            .map(|event| Self(Some(event)))
    }

    /// Waits until the stream has come there: what was brought to the host before it is there then.
    ///
    /// # Errors
    /// libtorch's words.
    pub fn wait(&self) -> Result<(), String> {
        let Some(event) = self.0 else { return Ok(()) };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the event is alive.
        attempt(|error| unsafe { tastemaker_event_wait(event, error) })?;
        Ok(())
    }

    /// Whether the stream has come there.
    pub(crate) fn is_over(&self) -> Result<bool, String> {
        let Some(event) = self.0 else { return Ok(true) };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the event is alive.
        attempt(|error| unsafe { tastemaker_event_is_over(event, error) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Some(event) = self.0 {
            #[expect(unsafe_code, reason = "a call of the shim")]
            // SAFETY: the event is alive, and nobody uses it after this.
            unsafe {
                tastemaker_event_free(event);
            }
        }
    }
}

type Message = *mut *mut c_char;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_stream_enter(device: i64, error: Message) -> *mut c_void;
    fn tastemaker_stream_free(stream: *mut c_void);
    fn tastemaker_stream_handle(stream: *const c_void, error: Message) -> *mut c_void;
    fn tastemaker_event_record(device: i64, error: Message) -> *mut c_void;
    fn tastemaker_event_free(event: *mut c_void);
    fn tastemaker_event_block(event: *const c_void, stream: *const c_void, error: Message) -> bool;
    fn tastemaker_event_wait(event: *const c_void, error: Message) -> bool;
    fn tastemaker_event_is_over(event: *const c_void, error: Message) -> bool;
}

// Streams and events of a device, by what libtorch has for every kind of device.

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "shim.h"

namespace {

c10::impl::VirtualGuardImpl guard_of(const c10::Device& device) { return c10::impl::VirtualGuardImpl(device.type()); }

c10::Device cuda(int64_t index) { return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)); }

}  // namespace

extern "C" {

// A stream of high priority beside the one that computes, current on the calling thread from now on, like its device.
c10::Stream* tastemaker_stream_enter(int64_t device, char** error) {
  return tastemaker::guarded<c10::Stream*>(error, nullptr, [&] {
    auto guard = guard_of(cuda(device));
    guard.setDevice(cuda(device));
    auto stream = std::make_unique<c10::Stream>(guard.getStreamFromGlobalPool(cuda(device), true));
    guard.exchangeStream(*stream);
    return stream.release();
  });
}

void tastemaker_stream_free(c10::Stream* stream) { delete stream; }

// The device library's own name of the stream.
void* tastemaker_stream_handle(const c10::Stream* stream, char** error) {
  return tastemaker::guarded<void*>(error, nullptr, [&] { return stream->native_handle(); });
}

// Marks the place that the current stream of the calling thread has come to.
c10::Event* tastemaker_event_record(int64_t device, char** error) {
  return tastemaker::guarded<c10::Event*>(error, nullptr, [&] {
    auto event = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
    event->record(guard_of(cuda(device)).getStream(cuda(device)));
    return event.release();
  });
}

void tastemaker_event_free(c10::Event* event) { delete event; }

// Has the stream wait for an event before it does anything else.
bool tastemaker_event_block(const c10::Event* event, const c10::Stream* stream, char** error) {
  return tastemaker::guarded(error, false, [&] {
    event->block(*stream);
    return true;
  });
}

bool tastemaker_event_wait(const c10::Event* event, char** error) {
  return tastemaker::guarded(error, false, [&] {
    event->synchronize();
    return true;
  });
}

bool tastemaker_event_is_over(const c10::Event* event, char** error) {
  return tastemaker::guarded(error, false, [&] { return event->query(); });
}
}

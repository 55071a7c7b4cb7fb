"""Records what PyTorch's and TensorBoard's writers put into event files, at fixed wall times.

`--read FOLDER` prints what TensorBoard's own reader finds in event files, as JSON.
"""

import json
import pathlib
import struct
import sys
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common import main, save_meta
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar, text

# Steps and times that take one byte and several; figures that f32 rounds, and those it does not have.
SCALARS = [
    ("loss", 0, 0.6931471805599453, 1700000000.25),
    ("train/margin_t3", 1, -1e-9, 1700000001.0),
    ("OR loss", 127, 0.0, 1700000002.5),
    ("lr", 128, 2.048e-5, 1700000003.125),
    ("train/grad_norm", 3_000_000_000, float("inf"), 1.5),
    ("loss", 300, float("nan"), 1700000004.75),
]
TEXTS = [("plan", 0, "| key | value |\n| --- | --- |\n| beta | 5000 |\n", 1700000000.5), ("alarms", 40, "ü" * 100, 1700000000.75)]
PURGE = (41, 1700000010.5)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, color, channels):
    """An image without compression, so that it is the same whatever wrote it."""
    rows = b"".join(b"\0" + bytes((7 * x + 3 * y) % 256 for x in range(width * channels)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


IMAGES = [("validation/0-7", 50, png(5, 3, 2, 3), 5, 3, 3), ("validation/1-7", 0, png(2, 4, 0, 1), 2, 4, 1)]


def record(root):
    root.mkdir(parents=True, exist_ok=True)
    time = 1700000020.0
    events, described = [Event(wall_time=time, file_version="brain.Event:2")], []
    for tag, step, value, at in SCALARS:
        events.append(Event(wall_time=at, step=step, summary=scalar(tag, value)))
        described.append({"kind": "scalar", "tag": tag, "step": step, "value": str(value), "wall_time": at})
    for tag, step, markdown, at in TEXTS:
        events.append(Event(wall_time=at, step=step, summary=text(tag, markdown)))
        described.append({"kind": "text", "tag": tag, "step": step, "value": markdown, "wall_time": at})
    for i, (tag, step, data, width, height, channels) in enumerate(IMAGES):
        (root / f"{i}.png").write_bytes(data)
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=data)
        events.append(Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))
        described.append({"kind": "image", "tag": tag, "step": step, "value": f"{i}.png", "wall_time": time})
    step, at = PURGE
    events.append(Event(wall_time=at, step=step, session_log=SessionLog(status=SessionLog.START)))
    described.append({"kind": "purge", "step": step, "wall_time": at})
    with open(root / "events", "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    case = {"wall_time": time, "records": described}
    (root / "events.json").write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    save_meta(
        root, __doc__.splitlines()[0], 0, ("tensorboard", "torch"), {"bytes": 0}, "the same bytes", precision=None,
    )  # fmt: skip


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {tag: [[e.step, e.value] for e in found.Scalars(tag)] for tag in tags["scalars"]}
    images = {tag: [[e.step, e.width, e.height] for e in found.Images(tag)] for tag in tags["images"]}
    texts = {tag: [e.step for e in found.Tensors(tag)] for tag in tags["tensors"]}
    print(json.dumps({"scalars": scalars, "images": images, "texts": texts}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(sys.argv[2])
    else:
        main("tensorboard", record)

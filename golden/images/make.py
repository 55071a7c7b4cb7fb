"""Records small images in every way that sets of pairs have them, and the pixels that Pillow reads from them.

`NAME.EXT` is the image and `NAME.EXT.png` holds the pixels of `Image.open(...).convert("RGB")`. Samplings that Pillow reads and does
not write are made from those that it writes: the order of blocks in an MCU of 2 x 2 is that of one of 4 x 1, so that other factors in
the header give a valid file with its blocks elsewhere.
"""

import io
import pathlib
import struct
import sys
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
from common import main, save_meta
from PIL import Image, ImageCms

WIDTH, HEIGHT = 61, 43


def values(width, height, channels, seed):
    """Soft colors with edges and noise, in 0 to 1, `[height, width, channels]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(x * (1 + i) + i) * np.cos(y * (2 - 0.3 * i)) for i in range(channels)]
    image = 0.5 + 0.35 * np.stack(waves, -1) + 0.1 * rng.standard_normal((height, width, channels))
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.random(channels)
    return image.clip(0, 1)


def image(mode="RGB", size=(WIDTH, HEIGHT), seed=0):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = (values(*size, channels, seed) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def saved(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def jpeg(mode="RGB", size=(WIDTH, HEIGHT), **options):
    return saved(image(mode, size), "JPEG", **{"quality": 90, **options})


def segments(data):
    """Offsets of the markers before the first scan, each with its code."""
    at = 2
    while True:
        code = data[at + 1]
        yield at, code
        if code == 0xDA:
            return
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]


def sampled(data, factors, size):
    """The same blocks under other sampling factors of the first component, and another size with as many MCUs."""
    (at,) = [at for at, code in segments(data) if code in (0xC0, 0xC2)]
    width, height = size
    head = data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 : at + 11]
    return head + bytes([factors[0] << 4 | factors[1]]) + data[at + 12 :]


def with_transform(data, transform):
    """Another transform in Adobe's marker, or none of that marker."""
    (at,) = [at for at, code in segments(data) if code == 0xEE]
    end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return data[:at] + data[end:] if transform is None else data[: end - 1] + bytes([transform]) + data[end:]


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def jpegs():
    """A profile that swaps red and blue shows whoever applies it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red], profile[blue] = profile[blue], profile[red]
    profile[24:36] = bytes(12)  # when it was made
    whole, odd = (64, 64), (61, 57)
    two_by_one, two_by_two = jpeg(subsampling=1, size=whole), jpeg(subsampling=2, size=whole)
    cmyk = jpeg("CMYK")
    return {
        "444": jpeg(subsampling=0),
        "422": jpeg(subsampling=1),
        "420": jpeg(subsampling=2),
        "440": sampled(two_by_one, (1, 2), (29, 125)),
        "411": sampled(two_by_two, (4, 1), odd),
        "1x4": sampled(two_by_two, (1, 4), odd),
        "444-progressive": jpeg(subsampling=0, progressive=True),
        "422-progressive": jpeg(subsampling=1, progressive=True),
        "420-progressive": jpeg(subsampling=2, progressive=True),
        "gray": jpeg("L"),
        "gray-progressive": jpeg("L", progressive=True),
        "rgb": jpeg(keep_rgb=True),
        "cmyk": cmyk,
        "cmyk-progressive": jpeg("CMYK", progressive=True),
        "cmyk-without-adobe": with_transform(cmyk, None),
        "ycck": with_transform(cmyk, 2),
        "restart-blocks": jpeg(restart_marker_blocks=3),
        "restart-rows": jpeg(restart_marker_rows=1, progressive=True),
        "optimized": jpeg(optimize=True),
        "quality-1": jpeg(quality=1),
        "quality-100": jpeg(quality=100),
        "exif-6": jpeg(exif=oriented(6)),
        "exif-2": jpeg(exif=oriented(2)),
        "icc": jpeg(icc_profile=bytes(profile)),
        "one": jpeg(size=(1, 1)),
        "column": jpeg(size=(1, 37)),
        "row": jpeg(size=(37, 1)),
        "junk-at-end": jpeg() + b"\0\0junk",
    }


def png(samples, depth, color, extra=b""):
    """A PNG file as it is, `samples` being `[height, width, channels]`, for what Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = samples.shape
    lines = samples.reshape(height, -1)
    rows = b"".join(b"\0" + line.astype(">u2" if depth == 16 else "u1").tobytes() for line in lines)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def pngs():
    def wide(channels, scale=65535):
        return (values(WIDTH, HEIGHT, channels, 1) * scale).round().astype(np.uint16)

    transparent = b"\0\0\0\x02tRNS\0\0" + struct.pack(">I", zlib.crc32(b"tRNS\0\0"))
    palette = image().quantize(16)
    palette.info["transparency"] = 3
    return {
        "gray-16": png(wide(1), 16, 0),
        "gray-16-dark": png(wide(1, 400), 16, 0),
        "gray-16-transparent": png(wide(1, 400), 16, 0, transparent),
        "gray-alpha-16": png(wide(2), 16, 4),
        "rgb-16": png(wide(3), 16, 2),
        "rgba-16": png(wide(4), 16, 6),
        "gray": saved(image("L"), "PNG"),
        "gray-1": saved(image("L").convert("1"), "PNG"),
        "gray-alpha": saved(image("LA"), "PNG"),
        "rgba": saved(image("RGBA"), "PNG"),
        "palette": saved(palette, "PNG"),
        "palette-4": saved(image().quantize(13), "PNG", bits=4),
    }


def webps():
    first, second = image(), image(seed=1)
    return {
        "lossy": saved(image(), "WEBP", quality=80),
        "lossy-alpha": saved(image("RGBA"), "WEBP", quality=80),
        "lossless": saved(image(), "WEBP", lossless=True),
        "animated": saved(first, "WEBP", save_all=True, append_images=[second], lossless=True),
    }


def record(root):
    root.mkdir(parents=True, exist_ok=True)
    for kind, cases in (("jpg", jpegs()), ("png", pngs()), ("webp", webps())):
        for name, data in cases.items():
            (root / f"{name}.{kind}").write_bytes(data)
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            Image.fromarray(pixels).save(root / f"{name}.{kind}.png", optimize=True)
    save_meta(
        root, __doc__.splitlines()[0], 0, ("pillow", "numpy"), {"level": 1},
        "of 255; libjpeg-turbo's C code and its vector code agree, other libraries may round otherwise", precision=None,
    )  # fmt: skip


if __name__ == "__main__":
    main("images", record)

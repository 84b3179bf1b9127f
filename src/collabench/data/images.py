"""Decoding of image files (:mod:`collabench.data.image_files`).

All images are read as RGB. Images of one size are kept unchanged. With ``resize`` the shorter side is resized to it
(bilinear, antialiased) and the middle square is cropped.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from collabench.core.errors import DataError, Log
from collabench.data.archives import one_line
from collabench.data.image_files import BadFiles, ImageFiles

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000


def open_image(content: bytes, name: str, upright: bool = False) -> Image.Image:
    """The decoded image as RGB.

    upright: turn it as its EXIF orientation says. Raises DataError, naming the image, if it is damaged, truncated or
    extremely large, or has more than 8 bits per channel, which conversion would cut off at 255.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{name}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}; refused")
        if image.mode[0] in "IF":
            raise DataError(f"{name}: has more than 8 bits a pixel (Pillow's mode {image.mode}); convert it to 8 bits")
        return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    except DataError:
        raise
    except MemoryError:
        raise MemoryError(f"{name}: does not fit in memory") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image that can be decoded (none of {', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise many kinds of errors with the same meaning here
        raise DataError(f"{name}: not an image that can be decoded ({one_line(error)})") from None


def is_turned(content: bytes) -> bool:
    """Whether an image's EXIF data say that it is to be turned or mirrored."""
    try:
        exif = Image.Exif()
        exif.load(Image.open(io.BytesIO(content), formats=FORMATS).info.get("exif", b""))
        return exif.get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # whoever decodes the image says what is wrong with it
        return False


def square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to ``side`` (bilinear, antialiased) and crop the middle."""
    return centre_crop(image, side, side)


def centre_crop(image: Image.Image, shorter_side: int, side: int) -> Image.Image:
    """Resize the shorter side to ``shorter_side`` (bilinear, antialiased), then crop the middle ``side`` x ``side``.

    Of an image so narrow that it would be resized to more than :data:`MAX_PIXELS`, only the part is resized that is
    kept.
    """
    scale = shorter_side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    if width * height > MAX_PIXELS:
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + side) * across, (top + side) * down)
        return image.resize((side, side), Image.Resampling.BILINEAR, box)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + side, top + side))


def decode(files: ImageFiles, wanted: Tensor, resize: int | None, upright: bool, log: Log) -> Tensor:
    """The wanted files as one array, uint8 (N, H, W, 3), in the order of ``wanted``.

    upright: turn images as their EXIF orientation says. Raises BadFiles, naming every file that is damaged or, without
    ``resize``, has another size than most.
    """
    row_of = {position: row for row, position in enumerate(wanted.tolist())}
    array: np.ndarray | None = None
    bad: dict[str, str] = {}
    names_of: dict[tuple[int, int], list[str]] = {}
    turned = done = 0
    for position, content in files.read(row_of):
        name = files.names[position]
        done += 1
        try:
            image = open_image(content, name, upright)
        except DataError as error:
            bad[name] = str(error)
            continue
        turned += is_turned(content)
        if resize is not None:
            image = square(image, resize)
        names_of.setdefault(image.size, []).append(name)
        if array is None:
            array = np.empty((len(wanted), image.height, image.width, 3), dtype=np.uint8)
        if (image.height, image.width) == array.shape[1:3]:
            array[row_of[position]] = np.asarray(image)
    if done < len(wanted):
        raise DataError(f"{files.path}: files vanished while they were read")
    usual = max(names_of, key=lambda size: len(names_of[size]), default=(0, 0))
    for size, names in names_of.items():
        if size != usual:
            line = f"is {size[0]} x {size[1]} pixels, others are {usual[0]} x {usual[1]}"
            bad |= {name: f"{name} {line}" for name in names}
    if bad or array is None:
        advice = "give the data set a resize" if len(names_of) > 1 else ""
        raise BadFiles(files.path, [bad[name] for name in sorted(bad)], advice)
    tell_turned(turned, upright, files.path, log)
    return torch.from_numpy(array)


def tell_turned(count: int, upright: bool, path: Path, log: Log) -> None:
    """Log how many images have an EXIF orientation, and what becomes of it."""
    if count:
        what = "applied" if upright else "ignored, as exif_orientation says"
        log(f"{path}: {count:,} images have an EXIF orientation, which is {what}")

"""An archive of CIFAR-10 as JPEG files, as the profile ``cifar10-jpeg`` reads it, from the official files.

``python -m benchmarks.jpeg_archive FILE.tar.xz`` downloads CIFAR-10 as torchvision gives it (checksummed), or reads it
from where ``--path`` says, and writes ``train/<class>/NNNN.jpg`` and ``test/<class>/NNNN.jpg`` in the data set's own
order: JPEG of quality 75 with halved colour resolution. Such an archive is close to the one that the committed report
was made from, and not equal to it byte for byte: encoders differ. Its runs have ids of their own, since an id covers
the checksum. The images are lossy, and the numbers are not those of plain CIFAR-10.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections import Counter
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from collabench.config.data_sections import DatasetConfig
from collabench.core.errors import CollabenchError
from collabench.data.sources import Source, open_source
from collabench.storage.files import sha256_of

QUALITY = 75


def write_archive(source: Source, target: Path) -> None:
    """Write the images of both splits. The same images give the same bytes with the same versions of Pillow and xz."""
    everything = [torch.arange(len(labels)) for labels in (source.train_labels, source.test_labels)]
    train, test = source.read(*everything)
    with tarfile.open(target, "w:xz", preset=6) as archive:
        for split, images, labels in (("train", train, source.train_labels), ("test", test, source.test_labels)):
            _add_split(archive, split, images, labels, source.classes)


def _add_split(archive: tarfile.TarFile, split: str, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    for folder in (split, *(f"{split}/{name}" for name in classes)):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
    names: dict[str, bytes] = {}
    seen: Counter[int] = Counter()
    for image, label in zip(images, labels.tolist(), strict=True):
        name = f"{split}/{classes[label]}/{seen[label]:04d}.jpg"
        seen[label] += 1
        content = io.BytesIO()
        Image.fromarray(image.numpy()).save(content, "JPEG", quality=QUALITY, subsampling="4:2:0")
        names[name] = content.getvalue()
    for name in sorted(names):
        entry = tarfile.TarInfo(name)
        entry.size = len(names[name])
        archive.addfile(entry, io.BytesIO(names[name]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", type=Path, help="the archive to write, such as data/cifar10-jpeg.tar.xz")
    parser.add_argument("--path", type=Path, help="cifar-10-python.tar.gz, or its unpacked folder, if it is there")
    parser.add_argument("--downloads", type=Path, default=Path("data/downloads"), help="where to download to")
    options = parser.parse_args()
    if options.target.exists():
        print(f"{options.target}: exists already; remove it first, or name another file", file=sys.stderr)
        return 2
    part = options.target.with_name(options.target.name + ".part")
    try:
        source = open_source(DatasetConfig(source="cifar10"), options.downloads, options.path, print)
        options.target.parent.mkdir(parents=True, exist_ok=True)
        write_archive(source, part)
        part.rename(options.target)
    except (CollabenchError, OSError) as error:
        part.unlink(missing_ok=True)
        print(error, file=sys.stderr)
        return 2
    print(
        f"{options.target}: {options.target.stat().st_size:,} bytes. In params.yaml, for each data set "
        f"cifar10-jpeg…:\n  path: {options.target}\n  sha256: {sha256_of(options.target)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Pickles that mean harm, are damaged, or were written by any version of Python and NumPy."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path

import numpy as np
import pytest

from collabench.core.errors import DataError
from collabench.data.pickles import read_pickle
from tests.support.official_formats import python2_pickle


class Evil:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


TRACE = Path("evil-was-here")


@pytest.mark.parametrize(
    "evil",
    [
        Evil(__import__("os").system, f"touch {TRACE}"),
        Evil(eval, f"open('{TRACE}', 'w')"),
        Evil(getattr, {}, "keys"),
        Evil(np.load, "x"),
        Evil(np.ndarray, (10,)),
        Evil(bytearray, 10**9),
        Evil(bytes, 10**9),
        Evil(codecs.encode, "x", "rot13"),
        Evil(np.dtype, "O"),
    ],
    ids=lambda evil: str(getattr(evil.call[0], "__name__", "")),
)
@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_call_something_are_refused(evil, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"batch_1: not a pickle of plain data and arrays .*; refused"):
        read_pickle(pickle.dumps({"data": evil}, protocol=protocol), "batch_1")
    assert not TRACE.exists()


def test_arrays_of_objects_are_refused():
    with pytest.raises(DataError, match="arrays of type 'O8' are not read"):
        read_pickle(pickle.dumps({"data": np.array([{}], dtype=object)}, protocol=3), "batch")


def test_arrays_whose_content_does_not_fit_their_shape_are_refused():
    content = pickle.dumps({"data": np.zeros((2, 3), dtype=np.uint8)}, protocol=3)
    shorter = content.replace(b"K\x02K\x03\x86", b"K\x09K\x09\x86")
    assert shorter != content
    with pytest.raises(DataError, match="batch: not a pickle"):
        read_pickle(shorter, "batch")


@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4", "float32", "float64"])
def test_arrays_of_both_pythons_are_read(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for content in (python2_pickle({b"data": array}), pickle.dumps({"data": array}, protocol=3)):
        read = read_pickle(content, "batch")["data"]
        assert read.dtype == array.dtype and np.array_equal(read, array)
    column_major = np.asfortranarray(array)
    assert np.array_equal(read_pickle(pickle.dumps({"data": column_major}, protocol=3), "batch")["data"], array)


@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage", pickle.dumps([1]), pickle.dumps({"a": 1})[:-3]])
def test_damaged_pickles_are_named(content):
    with pytest.raises(DataError, match="batch: "):
        read_pickle(content, "batch")


def later_numpy(content: bytes) -> bytes:
    """A pickle of protocol 0 to 3 as another NumPy writes it, before or after 2.0."""
    if b"numpy._core" in content:
        return content.replace(b"numpy._core", b"numpy.core")
    return content.replace(b"numpy.core", b"numpy._core")


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_with_scalars_of_numpy(protocol):
    """A batch as people write it anew: labels may be an array, or a list of NumPy's own numbers."""
    batch = {
        "data": np.arange(12, dtype=np.uint8).reshape(2, 6),
        b"turned": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        "every second": np.arange(12)[::2],
        "empty": np.zeros((0, 3), dtype=np.float32),
        "labels": [np.int64(3), np.uint8(7), 1],
        "rate": np.float64(0.1),
        "names": [b"cat", b"", "dog"],
    }
    content = pickle.dumps(batch, protocol=protocol)
    for written in (content, later_numpy(content)) if protocol < 4 else (content,):
        read = read_pickle(written, "batch")
        for name, value in batch.items():
            name = name if isinstance(name, str) else name.decode()
            if isinstance(value, np.ndarray):
                assert read[name].dtype == value.dtype and np.array_equal(read[name], value)
            else:
                assert read[name] == value
        assert all(type(label) is int for label in read["labels"])


def test_a_pickle_cannot_change_what_reads_the_next_one():
    """The opcode BUILD sets attributes of what a pickle refers to."""
    for name in ("_reconstruct", "scalar"):
        changing = b"\x80\x02cnumpy.core.multiarray\n" + name.encode() + b"\nN}X\x08\x00\x00\x00_allowedK\x01s\x86b."
        with pytest.raises(DataError, match="sets the attributes of a function"):
            read_pickle(changing, "batch")

"""Safe reading of pickles from elsewhere: they can only produce plain data, numbers and numeric arrays.

All protocols are read, 0 to 5, of Python 2 and 3 and of NumPy before and after 2.0. What a pickle names is looked up in
a table of stand-ins in this module; nothing is imported or called for it.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from collabench.core.errors import DataError
from collabench.data.archives import one_line

ByteOrder = Literal["=", "<", ">", "|"]


class _StandIn:
    """A function that a pickle may call, and nothing else: its attributes cannot be set by the pickle."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the attributes of a function")


@_StandIn
def _array_type(*arguments: object) -> None:
    """Stands for ``numpy.ndarray`` in a pickle: an argument of ``_reconstruct`` that cannot be called."""
    raise pickle.UnpicklingError("it makes an array without content")


class _DataType:
    """Stands for ``numpy.dtype`` in a pickle: one of a few numeric types, without numpy's own constructor."""

    _ALLOWED = frozenset(kind + size for kind in "iu" for size in "1248") | {"f4", "f8", "b1"}

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        text = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        if text not in self._ALLOWED:
            raise pickle.UnpicklingError(f"arrays of type {text!r} are not read")
        self.code = text
        self.order: ByteOrder = "="

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, element size, alignment, flags); plain types have no further
        # entries.
        if not isinstance(state, tuple) or len(state) < 8 or state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("an array type that is not plain")
        order = state[1].decode("ascii", "replace") if isinstance(state[1], bytes) else state[1]
        orders: dict[object, ByteOrder] = {"=": "=", "<": "<", ">": ">", "|": "|"}
        if not isinstance(order, str) or order not in orders:
            raise pickle.UnpicklingError("an array type of unknown byte order")
        self.order = orders[order]


class _Array:
    """An array that is being read. Python code checks its state and makes the ndarray, not numpy's unpickling code."""

    value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array without plain content")
        _, shape, kind, column_major, content = state
        self.value = _made(content, kind, shape, "F" if column_major else "C")


def _made(content: object, kind: object, shape: object, order: object) -> np.ndarray:
    """The array of these bytes, which must be as many as its type and shape need."""
    if not (
        isinstance(kind, _DataType)
        and isinstance(content, bytes | bytearray)
        and isinstance(shape, tuple)
        and all(type(length) is int and length >= 0 for length in shape)
        and order in ("C", "F")
    ):
        raise pickle.UnpicklingError("an array without plain content")
    array = np.frombuffer(bytes(content), dtype=np.dtype(kind.code).newbyteorder(kind.order))
    if len(array) != math.prod(shape):
        raise pickle.UnpicklingError(f"an array of {len(array)} values and the shape {shape}")
    return array.reshape(shape, order=order)


@_StandIn
def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _array_type or shape != (0,):
        raise pickle.UnpicklingError("an array of a kind that is not read")
    return _Array()


@_StandIn
def _frombuffer(content: object, kind: object, shape: object, order: object, axes: object = None) -> np.ndarray:
    """Stands for numpy's function of this name: an array of protocol 5."""
    if axes is not None:
        raise pickle.UnpicklingError("an array with its axes in another order")
    return _made(content, kind, shape, order)


@_StandIn
def _scalar(kind: object, content: object) -> Any:
    """Stands for ``numpy.…multiarray.scalar``: a single number."""
    return _made(content, kind, (), "C").item()


@_StandIn
def _encode(text: object, encoding: object = "utf-8") -> bytes:
    """Stands for ``_codecs.encode``, with which protocols 0 to 2 write the bytes of Python 3."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes that are not written as Latin-1")
    return text.encode("latin1")


@_StandIn
def _empty_bytes() -> bytes:
    """Stands for ``bytes``, with which protocols 0 to 2 write empty bytes."""
    return b""


_KNOWN = {
    ("numpy", "ndarray"): _array_type,
    ("numpy", "dtype"): _DataType,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
} | {
    (f"numpy.{core}.{module}", name): stand_in
    for core in ("core", "_core")
    for module, name, stand_in in (
        ("multiarray", "_reconstruct", _reconstruct),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _frombuffer),
    )
}


class _RestrictedReader(pickle.Unpickler):
    """Reads plain Python data and numeric arrays. A pickle can call nothing outside this module."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no data set needs") from None


def read_pickle(content: bytes, name: str) -> dict[str, Any]:
    """The dictionary, with text keys, in a pickle of plain data, numbers and numeric arrays (files of CIFAR and
    ImageNet32), of any protocol.

    Byte strings of Python 2 stay bytes. Raises DataError, naming the file (``name``), for a pickle that is damaged or
    asks for anything else. Nothing that the pickle names is imported or called.
    """
    try:
        value = _RestrictedReader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # an unpickler can be made to raise almost anything
        raise DataError(f"{name}: not a pickle of plain data and arrays ({one_line(error)}); refused") from None
    if not isinstance(value, dict):
        raise DataError(f"{name}: holds a {type(value).__name__}, not a dictionary; refused")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): (
            item.value if isinstance(item, _Array) else item
        )
        for key, item in value.items()
    }

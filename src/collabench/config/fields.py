"""Types of fields that several sections of ``params.yaml`` have."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$"
_CLASS_NAME = r"^[^/\r\n\x85\u2028\u2029]*$"
_LINE = r"^[^\r\n\x85\u2028\u2029]*$"
_SHA256 = r"^[0-9a-f]{64}$"

#: The pattern of a text → what the text must be, in words.
PATTERNS = {
    _NAME: "must be letters, digits and _ . + - (at most 64, the first one a letter or a digit)",
    _CLASS_NAME: "must be the name of a folder: one line, without /",
    _LINE: "must be one line",
    _SHA256: "must be a SHA-256: 64 digits from 0 to 9 and a to f, in lower case",
    # of the sections models and methods
    r"^[A-Za-z0-9_]+$": "must be letters, digits and _",
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$": "must be package.module:function",
}

Name = Annotated[str, StringConstraints(pattern=_NAME)]


class _AsWritten:
    """The type of :data:`AS_WRITTEN`."""


#: Marks a text that ``params.yaml`` holds as it is written, without quotes too: ``1e3`` and ``null`` are text there.
AS_WRITTEN = _AsWritten()

#: The name of a class: of a folder, in any language and of any form (``golden retriever``, ``café``, ``007``, ``yes``),
#: or of an official list. It is kept in Unicode's composed form, since a Mac may write its folder in another.
ClassName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=_CLASS_NAME),
    AfterValidator(lambda name: unicodedata.normalize("NFC", name)),
    AS_WRITTEN,
]
#: Text on one line.
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=_LINE)]
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]

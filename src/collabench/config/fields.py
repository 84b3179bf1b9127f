"""Types of fields that several sections of ``params.yaml`` have."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]


class _AsWritten:
    """The type of :data:`AS_WRITTEN`."""


#: Marks a text that ``params.yaml`` holds as it is written, without quotes too: ``1e3`` and ``null`` are text there.
AS_WRITTEN = _AsWritten()

#: The name of a class: of a folder, in any language and of any form (``golden retriever``, ``café``, ``007``, ``yes``),
#: or of an official list. It is kept in Unicode's composed form, since a Mac may write its folder in another.
ClassName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\r\n\x85\u2028\u2029]*$"),
    AfterValidator(lambda name: unicodedata.normalize("NFC", name)),
    AS_WRITTEN,
]
#: Text on one line.
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\r\n\x85\u2028\u2029]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

"""Sources as a reader cites them: author, year and section, instead of the file that holds the text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from collabench.papers.claim_schema import ClaimSource
from collabench.papers.schema import About, Source

_YEAR = re.compile(r"\b(?:19|20)\d\d\b")

#: What a text is called if it is the whole paper, which needs no mention.
_WHOLE = "full text"


def citation(about: About) -> str:
    """``Song & Chai 2018``: authors and year of publication, if ``published`` names one."""
    year = _YEAR.search(about.published)
    return f"{about.authors} {year[0]}" if year else about.authors


def cited(about: About, file: str, place: str = "") -> str:
    """``Fang & Lin 2021, IV.B, last sentence``; with a source that is not the paper itself also what it is:
    ``Song & Chai 2018 (abstract), first sentence``. A file that ``paper.yaml`` does not list is named as it is."""
    kind = about.sources.get(file, file)
    text = citation(about) if kind.startswith(_WHOLE) and "which quotes" not in kind else f"{citation(about)} ({kind})"
    return f"{text}, {place}" if place else text


def cited_table(about: About, source: Source) -> str:
    """The place of a published table: its heading, or the words of the text."""
    return cited(about, source.file, source.table or f"“{source.words}”")


def cited_claim(abouts: Mapping[str, About], paper: str, source: ClaimSource) -> str:
    """The place of a claim, with its words. abouts: paper → ``paper.yaml``. Without an entry the file is named."""
    if paper not in abouts:
        return str(source)
    return f"{cited(abouts[paper], source.file, source.place)}: “{source.words}”"

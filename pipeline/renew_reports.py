"""``python -m pipeline.renew_reports PROFILE …``: accepted reports whose runs are not here say what new reports say.

A report is built from results. One whose results are elsewhere keeps its numbers, and some of its words grow old. Only
these change, in the folder ``reports/PROFILE``, and all are made from the report's own figures:

1. a source is cited as a paper (``Fang & Lin 2021, IV.B``), where the name of the file with its text stood;
2. ``report.json`` has the verdicts of ``claims.json``;
3. ``metrics/`` has the figures of ``report.json`` and ``claims.json`` that ``dvc metrics show`` shows;
4. ``README.md`` opens with the lead and its plot, made from ``claims.json``.

A second run changes nothing. A mistake is one line and exit code 2.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabench.config.params import Params, load_params
from collabench.core.errors import CollabenchError
from collabench.papers.citations import cited
from collabench.papers.claims import load_claims
from collabench.papers.schema import About
from collabench.papers.tables import Paper, load_papers
from collabench.report.across_profiles import ClaimEverywhere, join_claims
from collabench.report.claim_records import ClaimReport
from collabench.report.content import Report
from collabench.report.folders import CLAIMS, CONTENT, COSTS, OVERVIEW
from collabench.report.metrics import METRICS, write_metrics
from collabench.report.pages.lead import FOREST, write_lead
from collabench.storage.files import checksum_of_body, read_json, write_atomically
from collabench.storage.workspace import Workspace


def renew(root: Path, profile: str) -> None:
    """Renew one accepted report. Raises CollabenchError (one line) if it cannot be read."""
    workspace = Workspace(root, profile)
    folder, params = workspace.accepted_report, load_params(workspace.params)
    report, verdicts = read_json(folder / CONTENT, Report), read_json(folder / CLAIMS, ClaimReport)
    papers = load_papers(workspace.papers, params, resolved=False)
    claims = _joined(workspace, params, papers, profile, verdicts)
    abouts = {name: paper.about for name, paper in papers.items()}
    for path in sorted([*folder.glob("*.md"), *(folder / COSTS).glob("*.md")]):
        _write(path, cite_in(path.read_text(encoding="utf-8"), abouts))
    for path in (folder / CLAIMS, folder / COSTS / CLAIMS):
        if path.is_file():
            _change(path, lambda body: _cite_claims(body, abouts))
    reached = [one.model_dump(mode="json") for one in verdicts.reached()]
    _change(folder / CONTENT, lambda body: body | {"verdicts": reached})
    shutil.rmtree(folder / METRICS, ignore_errors=True)
    write_metrics(folder, report, claims, papers)
    page = folder / OVERVIEW
    text = page.read_text(encoding="utf-8")
    if FOREST not in text and (lead := write_lead(folder, claims, papers)):
        heading, _, rest = text.partition("\n")
        _write(page, "\n\n".join([heading, *lead, rest.lstrip("\n")]))


def cite_in(text: str, abouts: Mapping[str, About]) -> str:
    """Name a paper instead of the file of its text, where a place in that text or what it is follows."""
    for about in abouts.values():
        for file, kind in about.sources.items():
            text = text.replace(f"`{file}`, {kind}", cited(about, file))
            text = text.replace(f"{file}, ", f"{cited(about, file)}, ")
    return text


def _joined(
    workspace: Workspace, params: Params, papers: Mapping[str, Paper], profile: str, verdicts: ClaimReport
) -> tuple[ClaimEverywhere, ...]:
    return join_claims(load_claims(workspace.papers, params), params, papers, [(profile, verdicts)])


def _cite_claims(body: dict[str, Any], abouts: Mapping[str, About]) -> dict[str, Any]:
    """Where a source is words. Records of untested statements name the file itself, as those of new reports do."""
    claims = [claim | {"source": cite_in(claim["source"], abouts)} for claim in body["claims"]]
    return body | {"claims": claims}


def _change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    body = json.loads(path.read_text(encoding="utf-8"))
    del body["checksum"]
    body = change(body)
    body["checksum"] = checksum_of_body(body)
    _write(path, json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    if text != path.read_text(encoding="utf-8"):
        write_atomically(path, text.encode())


def main(profiles: Sequence[str]) -> int:
    if not profiles:
        print("name the profiles whose accepted reports are renewed, such as: digits", file=sys.stderr)
        return 2
    try:
        for profile in profiles:
            renew(Path.cwd(), profile)
    except CollabenchError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Which tests does a replication make again? From the accepted reports: ``papers/replications.yaml``.

``python -m benchmarks.replication --write`` writes the file anew for every profile that replicates others, before it
runs. Only verdicts about errors are made again, and only those that are decided. A first study whose tests have further
looks is made again when it has finished.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from collabench.config.params import Params, load_params
from collabench.core.errors import CollabenchError
from collabench.papers.replications import REPLICATIONS
from collabench.report.claim_records import ClaimReport
from collabench.report.gather import CLAIMS
from collabench.report.replication import decided_tests
from collabench.storage.files import read_json
from collabench.storage.workspace import Workspace

HEADER = """\
# The tests that each replication makes again: what the accepted reports of the first studies had decided, with the
# seeds of the look that decided and the effects that the verdict rests on (in the claim's unit; low, high: 95 %
# interval, not adjusted). Written before the replication runs, by `python -m benchmarks.replication --write`. Don't
# edit it.
"""


def replications(root: Path, params: Params) -> dict[str, list[dict[str, Any]]]:
    """Profile → its tests, from the accepted reports below ``root``. Raises ResultError if one is missing."""
    found = {}
    for profile, settings in params.profiles.items():
        tests = [
            test
            for first in settings.replicates
            if not in_progress(root, first)
            for test in decided_tests(read_json(Workspace(root, first).accepted_report / CLAIMS, ClaimReport))
        ]
        if tests:
            found[profile] = [test.model_dump(mode="json", exclude_none=True) for test in tests]
    return found


def in_progress(root: Path, profile: str) -> bool:
    """Whether tests of a profile's accepted report have a further look: what it decides is then not known in full."""
    path = Workspace(root, profile).accepted_report / "report.json"
    return bool(json.loads(path.read_text(encoding="utf-8")).get("open_tests"))


def render(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [HEADER + "replications:"]
    for profile, tests in found.items():
        lines.append(f"  {profile}:")
        for test in tests:
            text = yaml.safe_dump(test, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
            lines.append(f"    - {text.strip()}")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write papers/{REPLICATIONS}; else print it")
    options = parser.parse_args()
    root = Path.cwd()
    try:
        text = render(replications(root, load_params(root / "params.yaml")))
    except CollabenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.write:
        (root / "papers" / REPLICATIONS).write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A project with one small paper of its own."""

from __future__ import annotations

from pathlib import Path

from collabench.config.params import load_params
from collabench.papers.tables import load_papers
from tests.support import fabricated

PAPER = "{title: A paper, authors: Somebody, published: somewhere, sources: {text.txt: all of it}}\n"


TABLE = """\
kind: table
title: Table I. Errors
metric: top1_error
protocol: {runs: 1, epoch: best}
source: {file: text.txt, table: TABLE I}
baseline: plain
configuration: {dataset: digits-500, noise: uniform20, model: resnet8, recipe: forty}
columns:
  plain: {title: plain, configuration: {method: individual}}
  tree: {title: L_tree, configuration: {method: simple-2}}
row_titles: [Noise]
rows:
  noisy: {labels: [noisy], values: {plain: 11.50, tree: 30.0}}
  clean: {labels: [clean], values: {plain: 6.0, tree: unknown}, configuration: {noise: clean}}
"""


QUOTES = """\
kind: quotes
title: Quotes
quotes:
  gain:
    what: the gain
    value: 2.5
    before: {table: one, row: noisy, columns: [plain]}
    after: {table: one, row: noisy, columns: [plain, tree]}
    sources: [{file: text.txt, words: a gain of 2.5%, number: 1}]
"""


TEXT = "It has a gain of **2.5%**.\n\nTABLE I\nERRORS.\n\nNoise\tplain\t$\\mathcal{L}_{tree}$\nnoisy\t11.50\t30.00\n"


PROFILE = """\
  small:
    description: one paper
    seeds: 5
    papers: [paper]
    tables:
      - {name: own, title: Our own, datasets: [digits-500], noise: [uniform20], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing]}
  other:
    description: nothing of the paper
    seeds: 2
    tables:
      - {name: trees, title: Trees, datasets: [digits], models: [resnet8], recipes: [forty],
          methods: [individual, simple-4]}
"""


def project_in(root: Path) -> Path:
    """The project; its profile ``small`` is of the paper, ``other`` is not."""
    fabricated.make_study(root, PROFILE.replace("[paper]", "[]"))
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("papers: []", "papers: [paper]"))
    folder = root / "papers" / "paper"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text(PAPER)
    (folder / "one.yaml").write_text(TABLE)
    (folder / "quotes.yaml").write_text(QUOTES)
    return root


def loaded(project: Path):
    return load_papers(project / "papers", load_params(project / "params.yaml"))["paper"]

"""Small ``params.yaml`` files: one builder for every test that needs one.

Sections come in the order of the real file and every entry is one line in flow style, so that a test can change a value
by its text, and a message can be expected to name a line.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.project import ROOT

#: Section → name → entry: what a section holds unless a test says so, and what it may name without writing it out.
USUAL: dict[str, dict[str, str]] = {
    "datasets": {"digits": "{source: digits}"},
    "noise": {"clean": "{kind: none}"},
    "models": {"small": "{family: cifar_resnet, depth: 8, width: 4}"},
    "recipes": {"fast": "{epochs: 2, batch_size: 32, learning_rate: 0.1}"},
    "methods": {"individual": "{method: individual}"},
}
FURTHER: dict[str, dict[str, str]] = {
    "datasets": {
        "few": "{source: digits, train_images: 60, test_images: 40}",
        "fewer": "{source: digits, train_images: 40, test_images: 40}",
    },
    "noise": {"uniform20": "{kind: uniform, rate: 0.2}"},
    # The teacher is the row of individual learning itself, so that tests have fewer runs.
    "methods": {"kd": "{method: kd, same_initialisation: true}", "tree": "{method: song2018}"},
}


def entries(section: str, given: str | Mapping[str, str]) -> dict[str, str]:
    """``given``: names of known entries, or name → entry in YAML, in which an empty one is a known entry."""
    known = USUAL[section] | FURTHER.get(section, {})
    named = dict.fromkeys(given.split(), "") if isinstance(given, str) else given
    return {name: entry or known[name] for name, entry in named.items()}


def table(
    methods: str = "individual",
    *,
    name: str = "one",
    datasets: str = "digits",
    noise: str = "",
    models: str = "small",
    recipes: str = "fast",
) -> str:
    """A table of a profile, in YAML. Names are separated by blanks."""
    parts = {"datasets": datasets, "noise": noise, "models": models, "recipes": recipes, "methods": methods}
    lists = (f"{part}: [{', '.join(names.split())}]" for part, names in parts.items() if names)
    return f"{{name: {name}, {', '.join(lists)}}}"


def profile(*tables: str, description: str = "a test", seeds: int = 1, **settings: object) -> str:
    """A profile of ``tables`` (:func:`table`), in YAML, indented by four. settings: what it has beside them."""
    fields = {"description": description, "seeds": seeds, **settings}
    lines = [f"    {name}: {value}\n" for name, value in fields.items()]
    if tables:
        lines += ["    tables:\n", *(f"      - {table}\n" for table in tables)]
    return "".join(lines)


def params_yaml(profiles: Mapping[str, str], **sections: str | Mapping[str, str]) -> str:
    """The file: sections as :func:`entries` takes them, and name → :func:`profile`."""
    parts = []
    for section, usual in USUAL.items():
        found = entries(section, sections.get(section, usual))
        parts += [f"{section}:\n", *(f"  {name}: {entry}\n" for name, entry in found.items())]
    parts += ["profiles:\n", *(f"  {name}:\n{text}" for name, text in profiles.items())]
    return "".join(parts)


def real_definitions(profiles: str, **added: str) -> str:
    """This project's ``params.yaml`` with other profiles, as YAML that is indented by two. added: lines with entries
    for a section, before its own."""
    text = (ROOT / "params.yaml").read_text()
    definitions = text[: text.index("\nprofiles:") + 1]
    for section, lines in added.items():
        assert f"\n{section}:\n" in definitions, section
        definitions = definitions.replace(f"\n{section}:\n", f"\n{section}:\n{lines}", 1)
    return f"{definitions}profiles:\n{profiles}"


#: A profile whose jobs are few and short, for tests of clusters.
CLUSTER = "cluster"
CLUSTER_PARAMS = """
  cluster:
    description: jobs for a cluster
    seeds: 2
    seeds_per_job: 1
    device: cpu
    tables:
      - {name: two, datasets: [digits-tiny], models: [resnet8], recipes: [smoke], methods: [individual]}
"""

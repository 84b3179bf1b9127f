"""A configuration that has been trained here is known to fit, and no network is built to find it out again."""

import pytest

from collabench.config import compatibility
from collabench.core.errors import ConfigError
from collabench.study.study import load_study
from tests.support.params import real_definitions

PROFILE = """\
  tiny: {description: tiny, seeds: 1, tables: [{name: tiny, datasets: [digits-500], noise: [clean], models: [resnet8],
    recipes: [smoke], methods: [individual, label-smoothing]}]}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text(real_definitions(PROFILE))
    return tmp_path


def test_only_what_was_never_trained_is_looked_at(project, monkeypatch):
    looked_at = []
    monkeypatch.setattr(compatibility, "check", lambda configuration: looked_at.append(configuration.id))
    trained, other = load_study(project, "tiny").plan.configurations
    assert looked_at == [trained, other]
    (project / "artifacts" / "tiny" / "runs" / trained / "seed-0").mkdir(parents=True)
    # Snakemake makes the folder of a marker before the job has begun.
    (project / "artifacts" / "tiny" / "runs" / other).mkdir()
    looked_at.clear()
    load_study(project, "tiny")
    assert looked_at == [other]


def test_what_does_not_fit_is_refused_beside_what_was_trained(project):
    trained = next(iter(load_study(project, "tiny").plan.configurations))
    (project / "artifacts" / "tiny" / "runs" / trained / "seed-0").mkdir(parents=True)
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("[individual, label-smoothing]", "[individual, fang2021-mid]"))
    with pytest.raises(ConfigError, match="needs a backbone that offers its intermediate layers"):
        load_study(project, "tiny")

"""A user's mistake at the command line: one line, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from collabench import cli
from tests.support.params import params_yaml, profile, table

A_SHA256 = "a" * 64
PARAMS = params_yaml(
    {
        "tiny": profile(table()),
        "absent": profile(table(datasets="photos")),
        "taught": profile(table("individual student")),
        "gpu": profile(table(), device="cuda"),
        "published": profile(papers="[nobody2020]"),
    },
    datasets={"digits": "{source: digits, train_images: 60, test_images: 40}",
              "photos": f"{{source: images, path: photos, sha256: {A_SHA256}}}"},
    recipes={"fast": "{epochs: 1, batch_size: 32, learning_rate: 0.1}"},
    methods={"individual": "",
             "student": f"{{method: kd, teacher_file: teacher.safetensors, teacher_sha256: {A_SHA256}}}"},
)  # fmt: skip


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(project: Path, capsys, monkeypatch, *arguments: str) -> str:
    """The one line on standard error of a command in the project's folder; nothing there may change."""
    before = contents(project)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["collabench", *arguments])
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # `python -m pytest` is not the program's name
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output = capsys.readouterr()
    assert ended.value.code == 2, output
    lines = output.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("collabench: error: "), output
    assert "Traceback" not in output.out
    assert contents(project) == before
    return lines[0].removeprefix("collabench: error: ")


COMMANDS = {
    "a profile that is none": (["plan", "-p", "tyni"],
        "params.yaml: there is no profile 'tyni'; profiles: tiny, absent"),
    "a path as profile": (["run", "-p", "../tiny"], "there is no profile '../tiny'"),
    "a folder that is none": (["plan", "--root", "/nowhere"], "/nowhere/params.yaml: cannot be read"),
    "a file as folder": (["plan", "--root", "params.yaml"],
        "params.yaml/params.yaml: cannot be read (Not a directory)"),
    "no cores": (["run", "-p", "tiny", "--cores", "0"], "CORES=0: must be a whole number, at least 1"),
    "negative cores": (["run", "-p", "tiny", "--cores", "-1"], "CORES=-1"),
    "half a core": (["run", "-p", "tiny", "--cores", "1.5"], "CORES=1.5"),
    "cores in words": (["reproduce", "-p", "tiny", "--cores", "all"], "CORES=all"),
    "a GPU that is none": (["run", "-p", "tiny", "--gpus", "97"], "GPUS=97"),
    "GPUs in words": (["run", "-p", "tiny", "--gpus", "all"], "GPUS=all"),
    "no GPU for a GPU profile": (["run", "-p", "gpu", "--gpus", "none"], "device: cuda"),
    "an unknown seed": (["run", "-p", "tiny", "--seed", "77"], "no run of profile tiny fits --seed 77;"),
    "an unknown method": (["run", "-p", "tiny", "--method", "nope", "--seed", "0"],
        "fits --method nope --seed 0; `collabench plan -p tiny` lists"),
    "an unknown configuration": (["run", "-p", "tiny", "--configuration", "x"],
        "no run of profile tiny fits --configuration x;"),
    "a shard that is none": (["run", "-p", "tiny", "--shard", "3/2"], "--shard 3/2: write i/k"),
    "data that is not there": (["run", "-p", "absent"], "data set photos: "),
    "the same data, reproduced": (["reproduce", "-p", "absent"], "data set photos: "),
    "a teacher that is not there": (["run", "-p", "taught"], "teacher.safetensors: cannot be read"),
    "the same, reproduced": (["reproduce", "-p", "taught"],
        "params.yaml:12: digits · clean · small · fast · student: methods"),
    "a paper that is not there": (["plan", "-p", "published"],
        "params.yaml: profiles.published.papers: there is no paper"),
    "a command that is none": (["plann"], "no such command 'plann' (did you mean 'plan', 'explain'?); see"),
    "an option that is none": (["plan", "--profil", "x"], "no such option: --profil"),
    "an option too many": (["plan", "tiny"], "unexpected argument: tiny; see collabench plan --help"),
    "an option without its value": (["run", "-p"], "option '-p' needs a value; see collabench run --help"),
    "an option that is missing": (["doubts"], "the option --out is missing; see collabench doubts --help"),
    "an argument that is missing": (["init"], "the argument {folder} is missing; see collabench init --help"),
    "a seed in words": (["run", "--seed", "one"], "--seed one: must be a whole number; see collabench run --help"),
    "hours in words": (["run", "--hours", "two"], "--hours two: must be a number; see collabench run --help"),
    "no hours": (["reproduce", "-p", "tiny", "--hours", "0"], "--hours 0: must be a number of hours above 0"),
    "a number out of range": (["verify", "--tolerance", "-1"], "--tolerance -1: must be at least 0; see"),
    "a choice that is none": (["report", "--format", "pdf"], "--format pdf: must be one of latex, csv; see"),
    "an unknown data set": (["data", "digest", "nope"], "'nope' is not a data set of params.yaml; there are digits"),
    "data of which there is no digest": (["data", "digest", "digits"], "is pinned by the program"),
    "files that are not there": (["data", "digest", "photos"], "photos: does not exist"),
    "a report without runs": (["report", "-p", "tiny"], "the report of 'tiny' lacks 1 of 1 runs"),
    "words that no cell has": (["explain", "-p", "tiny", "nothing"], "no cell of 'tiny' has all of 'nothing'"),
    "an export of nothing": (["export", "-p", "tiny", "--configuration", "x", "--out", "y"],
        "has no configuration 'x'"),
    "memory of an unknown method": (["memory", "digits/small/nope", "--recipe", "fast"],
        "'nope' is not defined under methods"),
    "memory of half a name": (["memory", "digits/small", "--recipe", "fast"],
        "a configuration is named dataset/model/method"),
    "memory for no image": (["memory", "digits/small/individual", "--recipe", "fast", "--image", "3x"], "--image '3x'"),
    "a partial report accepted": (["report", "-p", "tiny", "--partial", "--accept"],
        "--accept is for the report of a finished"),
    "a negative budget": (["estimate", "-p", "tiny", "--budget", "-1"], "--budget -1: a budget is a positive"),
    "an import from nowhere": (["import", "/nowhere", "-p", "tiny"],
        "is neither the folder of a copy of this project nor a DVC remote"),
    "gc of no profile": (["gc", "-p", "nope"], "there is no profile 'nope'"),
    "verification of no profile": (["verify", "-p", "nope"], "there is no profile 'nope'"),
    "sharing of no profile": (["share", "-p", "nope"], "there is no profile 'nope'"),
}  # fmt: skip


@pytest.mark.parametrize("what", COMMANDS)
def test_mistakes(project, capsys, monkeypatch, what):
    arguments, expected = COMMANDS[what]
    assert expected in refused(project, capsys, monkeypatch, *arguments)


@pytest.mark.parametrize(
    "arguments", [["plan"], ["run"], ["report"], ["reproduce"], ["gc"], ["data", "prepare"]], ids=str
)
def test_every_command_refuses_a_bad_file(project, capsys, monkeypatch, arguments):
    path = project / "params.yaml"
    path.write_text(PARAMS.replace("depth: 8", "depth: 8, widht: 4"))
    message = refused(project, capsys, monkeypatch, *arguments, "-p", "tiny")
    assert message.startswith(
        f"{path}:7: models.small.widht: unknown key 'widht' (did you mean width?); keys that would be right: family"
    )


@pytest.mark.parametrize("arguments", [["plan"], ["run"], ["report"], ["reproduce"]], ids=str)
def test_bad_claims_and_papers_are_refused_before_any_training(project, capsys, monkeypatch, arguments):
    claims = project / "papers" / "claims.yaml"
    claims.parent.mkdir()
    claims.write_text("scopes: {}\nclaims: []\nscoops: {}\n")
    message = refused(project, capsys, monkeypatch, *arguments, "-p", "tiny")
    assert message.startswith(
        f"{claims}:3: scoops: unknown key 'scoops' (did you mean scopes?); keys that would be right: designs, scopes"
    )
    claims.unlink()
    claims.parent.rmdir()
    claims.parent.write_text("papers")
    assert (
        refused(project, capsys, monkeypatch, *arguments, "-p", "tiny") == f"{claims.parent}: is not a folder of papers"
    )
    claims.parent.unlink()
    about = project / "papers" / "lee2020" / "paper.yaml"
    about.parent.mkdir(parents=True)
    about.write_text("title: A paper\n")
    message = refused(project, capsys, monkeypatch, *arguments, "-p", "tiny")
    assert message == f"{about}:1: authors: the key 'authors' is missing (and 2 more mistakes)"


def test_a_plan_names_what_is_missing(project, capsys, monkeypatch):
    monkeypatch.chdir(project)
    for name, expected in (("taught", "teacher.safetensors: cannot be read"), ("absent", "data set photos: ")):
        monkeypatch.setattr(sys, "argv", ["collabench", "plan", "-p", name])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing: ")]
        assert ended.value.code == 0 and len(lines) == 1 and expected in lines[0]
    assert list(project.iterdir()) == [project / "params.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command,damage,expected",
    [
        ("plan", ("epochs: 1", "epochs: one"), "params.yaml:9: recipes.fast.epochs: "),
        (
            "run",
            ("source: digits", "source: !!python/name:os.system ''"),
            "params.yaml:2: datasets.digits.source: the tag",
        ),
        ("run", ("methods: [individual]", "methods: [individual, *x]"), "not valid YAML: found undefined alias"),
        ("report", ("noise:", "noise:\n\tclean:"), "params.yaml:5: not valid YAML"),
        ("reproduce", ("seeds: 1", "seeds: 1\n    seeds: 2"), "profiles.tiny.seeds: stands here and on line"),
    ],
)
def test_the_real_command(project, command, damage, expected):
    (project / "params.yaml").write_text(PARAMS.replace(*damage, 1))
    before = contents(project)
    script = Path(sys.executable).parent / "collabench"
    ended = subprocess.run([script, command, "-p", "tiny"], cwd=project, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2, ended
    assert ended.stdout == "" and ended.stderr.startswith("collabench: error: ") and ended.stderr.count("\n") == 1
    assert expected in ended.stderr
    assert contents(project) == before

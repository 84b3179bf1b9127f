"""How planning, scheduling and reporting grow with a study: `python -m benchmarks.scale [--write] [--quick]`.

In a scratch copy of the project, with results that no training made: planning 200 to 10,000 runs, finished studies of
200 and 2,000 runs planned and reproduced again, with and without the record of what was said, the report over their
results, 2,000 jobs that only write their marker through Snakemake's scheduler, and what a real run costs beside its
training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "dvc.yaml", ".dvcignore", ".dvc/config", "pipeline", "profiles", "papers", "src")
METHODS = (
    "individual", "label-smoothing", "multi-instance-2", "multi-instance-4", "simple-2", "simple-4", "hierarchical-4",
    "auxiliary", "one-4", "okddip-4",
)  # fmt: skip
MODELS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44")
SEEDS = 8
TRIVIAL_JOB = '''"""Instead of training: the job's marker and nothing else."""

import sys
from pathlib import Path

profile, job = sys.argv[1:]
configuration, _, block = job.partition(".")
marker = Path("artifacts", profile, "runs", configuration, f"{block}.done")
marker.parent.mkdir(parents=True, exist_ok=True)
marker.touch()
'''


#: Runs jobs as Snakemake does, in forks of a process that has everything imported; prints the seconds of each.
SERVED_JOBS = """
import json, subprocess, sys, time
import collabench.study.runner
from collabench.core.server import dismiss, serve

served = serve()
assert served is not None, "no server of jobs on this system"
walls = []
for job in sys.argv[2:]:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.stages.train", sys.argv[1], job], check=True)
    walls.append(time.perf_counter() - begin)
dismiss(served)
print(json.dumps(walls))
"""


@dataclass(frozen=True)
class Scratch:
    """A copy of the project whose ``params.yaml`` has profiles of its own over the real definitions."""

    root: Path
    cores: int

    def call(self, *arguments: str, check: bool = True) -> str:
        """Run Python with these arguments in the copy; its output."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COLLABENCH_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each process would compile the source code again
        environment |= {
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def collabench(self, *arguments: str) -> str:
        return self.call("-c", "from collabench.cli import main; main()", *arguments)

    def reproduce(self, profile: str) -> None:
        self.collabench("reproduce", "-p", profile, "--cores", str(self.cores), "--gpus", "none")


def make_scratch(root: Path, cores: int, profiles: dict[str, str]) -> Scratch:
    """A copy of the project in ``root`` with these profiles (name → the rest of its entry, as one flow mapping)."""
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    noise = "".join(f"  noise{i}: {{kind: uniform, rate: {i / 100}}}\n" for i in range(1, 26))
    text = text.replace("\nnoise:\n", f"\nnoise:\n{noise}", 1)
    recipe = "  short: {epochs: 2, batch_size: 64, learning_rate: 0.1}\n"
    text = text.replace("\nrecipes:\n", f"\nrecipes:\n{recipe}", 1)
    entries = "".join(f"  {name}: {entry}\n" for name, entry in profiles.items())
    text = text.replace("\nprofiles:\n", f"\nprofiles:\n{entries}", 1)
    (root / "params.yaml").write_text(text, encoding="utf-8")
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=root, check=True)
    return Scratch(root, cores)


def profile(noises: int, models: int, methods: int, *, seeds: int = SEEDS, per_job: int = SEEDS) -> str:
    """A profile of noises x models x methods x seeds runs on few digits."""
    noise = ", ".join(f"noise{i}" for i in range(1, noises + 1))
    return (
        f"{{description: scale, seeds: {seeds}, seeds_per_job: {per_job}, device: cpu, tables: [{{name: scale, "
        f"datasets: [digits-500], noise: [{noise}], models: [{', '.join(MODELS[:models])}], recipes: [short], "
        f"methods: [{', '.join(METHODS[:methods])}]}}]}}"
    )


def prepare(scratch: Scratch, name: str):
    """The study of a profile, its data sets and noisy labels made in this process as Snakemake's stages make them."""
    from collabench.storage.files import write_atomically
    from collabench.study.study import load_study
    from pipeline.plan import noise_marker

    study = load_study(scratch.root, name)
    study.inputs.prepare_datasets(lambda line: None)
    study.inputs.prepare_noise(lambda line: None)
    for key in study.inputs.noise_files():
        write_atomically(noise_marker(study, key), b"")
    return study


def fabricate(scratch: Scratch, name: str) -> int:
    """Results, logits, weights, costs and markers of every run of a profile, by the real writers; how many runs."""
    import torch
    from safetensors.torch import save

    from collabench.storage.files import sha256_of, write_atomically, write_json
    from collabench.storage.results import LOGITS, RESULT, WEIGHTS
    from collabench.study.source_code import source_digest
    from tests.support.fabricated import measured_of, plausible, result_of

    study = prepare(scratch, name)
    weights = save({"weight": torch.zeros(1000)})
    for run in study.plan.runs:
        dataset = study.inputs.dataset(run)
        labels = dataset.test_labels
        error = plausible(run)
        wrong = torch.arange(len(labels)) < round(error * len(labels))
        logits = torch.nn.functional.one_hot((labels + wrong) % len(dataset.classes), len(dataset.classes)).half()
        folder = study.workspace.folder(run)
        for file, content in ((LOGITS, save({"deployed": logits})), (WEIGHTS, weights)):
            write_atomically(folder / file, content, durable=False)
        checksums = {file: sha256_of(folder / file) for file in (LOGITS, WEIGHTS)}
        error = wrong.sum().item() / len(labels)
        result = result_of(
            run,
            error,
            dataset_digest=dataset.digest,
            test_images=len(labels),
            train_images=500,
            files=checksums,
            source=source_digest(run.configuration),  # a study of unknown code is not remembered as finished
        )
        write_json(folder / RESULT, result, durable=False)
        write_json(study.workspace.measured_file(run), measured_of(run), durable=False)
    for job in study.jobs:
        study.jobs.finish(job)
    return len(study.plan.runs)


def seconds(action, *arguments: object, times: int = 3) -> list[str]:
    """Median seconds of an action that starts processes: by the clock, and of processor time, which other work on the
    machine changes little."""
    taken = []
    for _ in range(times):
        begin, before = time.perf_counter(), os.times()
        action(*arguments)
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        taken.append((time.perf_counter() - begin, processor))
    return [f"{statistics.median(values):.1f} s" for values in zip(*taken, strict=True)]


def trivial_jobs(scratch: Scratch, name: str, jobs: int) -> tuple[int, float]:
    """(jobs, longest time between two ends) of a study through Snakemake whose jobs only write a marker."""
    training = scratch.root / "pipeline" / "stages" / "train.py"
    real = training.read_text(encoding="utf-8")
    training.write_text(TRIVIAL_JOB, encoding="utf-8")
    try:
        # Its exit code is not 0: at the end the study counts results, and these jobs write none.
        said = scratch.call("-m", "pipeline.snakemake", name, "train", "--cores", str(scratch.cores), check=False)
    finally:
        training.write_text(real, encoding="utf-8")
    ends = sorted(m.stat().st_mtime for m in (scratch.root / "artifacts" / name / "runs").glob("*/*.done"))
    if len(ends) != jobs:
        raise SystemExit(f"{len(ends)} of {jobs} jobs have ended:\n{said[-3000:]}")
    return len(ends), max((later - earlier for earlier, later in pairwise(ends)), default=0.0)


def job_overhead(scratch: Scratch, name: str) -> tuple[float, float, float]:
    """Seconds of (starting a training job, a run beside training and evaluation, its training and evaluation): from
    jobs of one seed and of several, the way Snakemake starts them."""
    from collabench.storage.files import read_json
    from collabench.storage.results import Measured

    study = prepare(scratch, name)
    jobs = list(study.jobs)
    walls = json.loads(scratch.call("-c", SERVED_JOBS, name, *(job.id for job in jobs)).splitlines()[-1])
    spent: dict[int, list[float]] = {}
    pure: dict[int, list[float]] = {}
    for job, wall in zip(jobs, walls, strict=True):
        parts = [read_json(study.workspace.measured_file(r), Measured) for r in job.runs]
        trained = sum(part.train_seconds + part.evaluate_seconds for part in parts)
        spent.setdefault(len(job.runs), []).append(wall - trained)
        pure.setdefault(len(job.runs), []).append(trained / len(parts))
    few, many = min(spent), max(spent)
    each = (statistics.median(spent[many]) - statistics.median(spent[few])) / (many - few)
    return statistics.median(spent[few]) - each, each, statistics.median([*pure[few], *pure[many]])


def finished_again(scratch: Scratch, name: str, runs: int, times: int, aims: tuple[str, str, str]) -> list[list[str]]:
    """Rows on a finished study: planned and reproduced again, when nothing has changed, and without the record of what
    was said. aims: of the three rows."""
    from collabench.storage.workspace import Workspace

    said = Workspace(scratch.root, name).finished

    def anew() -> None:
        said.unlink(missing_ok=True)
        scratch.reproduce(name)

    scratch.reproduce(name)  # the first time DVC reads every file
    scratch.collabench("plan", "-p", name)
    cases = [
        ("finished study: `collabench plan`", scratch.collabench, ("plan", "-p", name)),
        ("the same: `collabench reproduce`, nothing has changed", scratch.reproduce, (name,)),
        ("the same through DVC, whose stages need not run", anew, ()),
    ]
    if not said.exists():
        raise SystemExit(f"{said}: reproduce has not recorded what it said")
    return [
        [what, f"{runs:,} runs", *seconds(action, *arguments, times=times), aim]
        for (what, action, arguments), aim in zip(cases, aims, strict=True)
    ]


def measure(quick: bool, cores: int, times: int = 3) -> tuple[list[str], list[list[str]]]:
    """The table: what, how many, seconds, and the aim where there is one. times: medians are over so many."""
    # runs = noises x models x methods x seeds
    sizes = {"few": (5, 1, 5), "many": (25, 1, 10), "most": (25, 5, 10)}
    if quick:
        sizes = {"few": (2, 1, 2), "many": (2, 1, 4), "most": (3, 2, 4)}
    count = {name: noises * models * methods * SEEDS for name, (noises, models, methods) in sizes.items()}
    profiles = {name: profile(*size) for name, size in sizes.items()}
    profiles["jobs"] = profile(*sizes["many"], per_job=1)
    # Seeds 0 to 3 are one job, seed 4 another.
    profiles["real"] = profile(3, 1, 1, seeds=5, per_job=4)
    with tempfile.TemporaryDirectory(prefix="collabench-scale-") as folder:
        scratch = make_scratch(Path(folder) / "project", cores, profiles)
        aims = {"few": "", "many": "8 s", "most": "12 s"}
        rows = [
            [
                "planning: `collabench plan`", f"{count[name]:,} runs",
                *seconds(scratch.collabench, "plan", "-p", name, times=times), aims[name],
            ]
            for name in sizes
        ]  # fmt: skip
        start, each, pure = job_overhead(scratch, "real")
        rows.append(["starting one training job (a configuration's seeds)", "", f"{start:.2f} s", "", "0.3 s"])
        rows.append([f"one run beside its training and evaluation ({pure:.1f} s here)", "", f"{each:.2f} s", "", ""])
        runs = fabricate(scratch, "few")  # from here on other profiles would link these instead of training
        rows += finished_again(scratch, "few", runs, times, ("0.6 s", "2 s", ""))
        runs = fabricate(scratch, "many")
        report = seconds(scratch.collabench, "report", "-p", "many", times=times)
        rows.append(["report: `collabench report`", f"{runs:,} results", *report, "20 s"])
        rows += finished_again(scratch, "many", runs, times, ("", "", "8 s"))
        dry = ("-m", "snakemake", "--config", "profile=many", "--dry-run", "--quiet", "--", "train")
        alone = seconds(scratch.call, *dry, times=times)
        rows.append(["the same, Snakemake alone: `snakemake train`", f"{runs:,} runs", *alone, "8 s"])
        study = prepare(scratch, "jobs")
        found = []
        taken = seconds(lambda: found.append(trivial_jobs(scratch, "jobs", len(list(study.jobs)))), times=1)
        jobs, gap = found[0]
        rows.append(["Snakemake's scheduler: jobs that only write their marker", f"{jobs:,} jobs", *taken, ""])
        rows.append(["the longest wait between the ends of two of them", "", f"{gap:.1f} s", "", ""])
    return ["what", "how many", "time", "processor time", "aim"], rows


def main() -> None:
    from tabulate import tabulate

    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="a few runs only, which shows that it works")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--times", type=int, default=3, help="of how many repetitions the median is taken")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick gives numbers that mean nothing: they are not written")
    head, rows = measure(options.quick, options.cores, options.times)
    print(tabulate(rows, head, disable_numparse=True))
    if options.write:
        from benchmarks.page import write

        write("scale", tabulate(rows, head, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()

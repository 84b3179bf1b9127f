"""All measurements of docs/performance.md: `make bench`, or `python -m benchmarks [--write] [--quick] [SECTION …]`.

Each section compares within one run, by medians. This process has torch's own arithmetic, with all instructions of the
processor; portable trainings are in processes of their own. ``--write`` puts the tables into docs/performance.md,
``--quick`` only shows that everything works: its numbers mean nothing. ``--cores N``: cores to use, by default two.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.page import Rows, write
from benchmarks.turns import here, rates
from collabench.core import arithmetic


def machine(bench: Bench) -> Rows:
    import torch

    from collabench.models.convolution.compiled import lanes
    from collabench.training.device import describe

    # describe ends with what torch may use, which portable arithmetic limits; the loops use all that there is.
    processor = describe(torch.device("cpu")).rpartition(", ")[0]
    return ["fact", "value"], [
        ["processor", f"{processor}, {'AVX-512' if lanes() == 16 else 'AVX2'}"],
        ["cores used", str(bench.cores)],
        ["torch", torch.__version__],
        ["convolution peak, one thread", f"{bench.peak / 1e9:.1f} GFLOP/s"],
        ["date", datetime.date.today().isoformat()],
        [
            "command",
            "`python -m benchmarks --write`" + (" with --quick: these numbers mean nothing" if bench.quick else ""),
        ],
    ]


def throughput_section(bench: Bench) -> Rows:
    """One thread; the reference's loader decodes in the same process, so that both have one core."""
    from benchmarks import throughput
    from collabench.training.flops import count

    shape, rows = (3, 32, 32), []
    cases = [(f"ResNet-{bench.depth} {graph}", bench.song(graph), graph) for graph in throughput.GRAPHS]
    dense = throughput.DENSENET | ({"depth": 13} if bench.quick else {})
    small = 8 if bench.quick else 32
    cases.append(("DenseNet-40-12 individual", bench.song("individual", dense, small), None))
    for name, configuration, graph in cases:
        batch = configuration.recipe.batch_size
        if graph is not None:
            network, loss = throughput.reference_tree(bench.depth, graph, 3)
        else:
            network, loss = throughput.reference_plain(configuration.model.model_dump(), shape)
        turns = {
            "ours": here(throughput.library_steps(configuration, shape, 4 * batch)),
            "portable": bench.portable.train(configuration, shape, 4 * batch),
            "theirs": here(throughput.reference_steps(network, loss, shape, batch, 4 * batch, 0)),
        }
        ours, portable, theirs = rates(turns).values()
        bench.portable.forget()
        counts = count(configuration, shape, 10)
        rows.append(
            [
                name, str(batch), f"{counts.training / 1e9:.3f}", f"{theirs:,.1f}", f"{ours:,.1f}",
                f"{ours / theirs:.2f}", f"{throughput.share_of_peak(ours, counts, bench.peak):.0%}",
                f"{portable:,.1f}", f"{portable / theirs:.2f}",
                f"{throughput.share_of_peak(portable, counts, bench.peak):.0%}",
            ]
        )  # fmt: skip
    head = ["what", "batch", "GFLOP an image", "reference, images/s", "library, images/s", "ratio", "share of peak"]
    return [*head, "portable, images/s", "ratio, portable", "share of peak, portable"], rows


def floor_section(bench: Bench) -> Rows:
    """Arithmetic at the convolution peak and bytes at the memory's speed, beside what a step takes; one thread."""
    from benchmarks import floor, throughput
    from collabench.training.flops import count

    shape, rows, bandwidth = (3, 32, 32), [], floor.memory_bandwidth(8 if bench.quick else 64)
    for graph in throughput.GRAPHS:
        configuration = bench.song(graph)
        arithmetic = bench.batch * count(configuration, shape, 10).training / bench.peak
        moved = floor.bytes_of_step(throughput.library_steps(configuration, shape, 4 * bench.batch))
        least, taken = arithmetic + moved / bandwidth, bench.batch / bench.rate_of(graph)
        rows.append(
            [
                f"ResNet-{bench.depth} {graph}", f"{1e3 * arithmetic:,.0f}", f"{moved / 1e9:.2f}",
                f"{1e3 * moved / bandwidth:,.0f}", f"{1e3 * least:,.0f}", f"{1e3 * taken:,.0f}", f"{taken / least:.2f}",
            ]
        )  # fmt: skip
    speed = f"at {bandwidth / 1e9:.1f} GB/s, ms"
    head = ["a step of", "arithmetic at peak, ms", "GB moved", speed, "sum, ms", "measured, ms", "measured / sum"]
    return head, rows


#: Entries of `params.yaml` whose cost is measured against the first one's.
INTRA_MODEL = (
    "individual", "fang2021-out", "fang2021-mid", "fang2021-pull-push", "fang2021-kernel",
    "fang2021-out-mid-pull-push-kernel",
)  # fmt: skip


def intra_model(bench: Bench) -> Rows:
    """VGG-16 and ResNet-18 with each fang2021 loss: against the reference, and against training without the loss."""
    from benchmarks import floor, throughput
    from collabench.training.memory import count_memory

    shape, rows, batch = (3, 32, 32), [], 4 if bench.quick else 16
    for model in ("vgg16-small", "resnet18-small") if bench.quick else ("vgg16", "resnet18"):
        found: dict[str, tuple] = {}
        for method in INTRA_MODEL:
            one = bench.base.model_copy(
                update={
                    "model": bench.params.models[model],
                    "method": bench.params.methods[method],
                    "recipe": bench.base.recipe.model_copy(update={"batch_size": batch}),
                }
            )
            if method == "individual":
                network, loss = throughput.reference_plain(one.model.model_dump(), shape)
                throughput.set_dropout_generator(network, throughput.torch.Generator())
            else:
                network, loss = throughput.reference_intra_model(one, shape)
            found[method] = (
                here(throughput.library_steps(one, shape, 4 * batch)),
                here(throughput.reference_steps(network, loss, shape, batch, 4 * batch, 0)),
                bench.portable.train(one, shape, 4 * batch),
                count_memory(one, shape, 10, 128),
                floor.operations_of_step(throughput.library_steps(one, shape, 4 * batch)),
            )
        turns = {f"{who} {method}": found[method][who] for method in INTRA_MODEL for who in (0, 1, 2)}
        speed = rates(turns)
        bench.portable.forget()
        for method in INTRA_MODEL:
            ours, theirs, portable = (speed[f"{who} {method}"] for who in (0, 1, 2))
            memory, first, alone = found[method][3], found["individual"][3], speed["0 individual"]
            rows.append(
                [
                    f"{model} {method}", f"{theirs:,.1f}", f"{ours:,.1f}", f"{ours / theirs:.2f}", f"{portable:,.1f}",
                    f"{portable / theirs:.2f}", f"{alone / ours:.2f}", f"{memory.held / first.held:.3f}",
                    f"{found[method][4]:,}",
                ]
            )  # fmt: skip
    head = ["what", "reference, images/s", "library, images/s", "ratio", "portable, images/s", "ratio, portable"]
    return [*head, "time × individual", "memory × individual", "operations a step"], rows


def cost_of_collaboration(bench: Bench) -> Rows:
    """Counted arithmetic and memory, and measured time, of training graphs, relative to one plain network."""
    from benchmarks import throughput
    from collabench.training.flops import count
    from collabench.training.memory import count_memory

    shape, rows, first = (3, 32, 32), [], None
    for graph in throughput.GRAPHS:
        configuration = bench.song(graph)
        seconds = 1 / bench.rate_of(graph)
        now = (count(configuration, shape, 10).training, count_memory(configuration, shape, 10).held, seconds)
        first = first or now
        deployed = count(configuration, shape, 10).deployed / count(configuration, shape, 10).forward
        ratios = [f"{value / base:.2f}" for value, base in zip(now, first, strict=True)]
        rows.append([f"ResNet-{bench.depth} {graph}", *ratios, f"{deployed:.2f}"])
    return ["training graph", "arithmetic ×", "memory ×", "time ×", "arithmetic when deployed ×"], rows


def input_pipeline(bench: Bench) -> Rows:
    from benchmarks import throughput

    shape = (3, 32, 32)
    stream = throughput.batches(shape, bench.batch, 20 * bench.batch)
    alone = throughput.rate((len(labels) for _, labels in stream), 10)
    step = bench.rate_of("individual")
    images, labels = throughput.random_images(shape, 4 * bench.batch)
    from benchmarks import reference

    data = reference.loader(images, labels, bench.batch, 4, True, 0)
    theirs = throughput.rate((len(y) for _ in range(1000) for _, y in data), 2)
    return ["pipeline", "images/s", f"share of a ResNet-{bench.depth} step"], [
        ["library", f"{alone:,.0f}", f"{step / alone:.2%}"],
        ["reference (PIL, in the same process)", f"{theirs:,.0f}", f"{step / theirs:.2%}"],
    ]


#: Images per second that training on one H100 is to reach, which the input must keep up with.
TARGETS = {"32x32": 60_000, "224x224": 3_000}


def streaming(bench: Bench) -> Rows:
    """Images that do not fit in memory, decoded from JPEG files in the file system's cache."""
    import torch

    from collabench.config.sections import Augmentation
    from collabench.study.gpu_check.decoding import rate, write_images

    rows = []
    cases = {
        "32x32": ((32, 32), Augmentation(shift=4, flip=True), 32, 2000, 128),
        "224x224": ((500, 375), Augmentation(flip=True, random_resized_crop=224), None, 200, 32),
    }
    for name, (size, augmentation, resize, count, batch) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder), (count // 20 if bench.quick else count) + 1, size)
            wall, processor, kilobytes = rate(
                Path(folder), augmentation, resize, batch, 1 if bench.quick else 3, torch.device("cpu")
            )
        rows.append(
            [
                name, f"{size[0]}x{size[1]}, {kilobytes:.1f} kB", f"{wall:,.0f}", f"{processor:,.0f}",
                f"{TARGETS[name] / processor:.1f}",
            ]
        )  # fmt: skip
    head = [
        "trained on",
        "file",
        f"images/s, {bench.cores} cores",
        "images/s of processor time",
        "cores for the H100's target",
    ]
    return head, rows


def end_to_end(bench: Bench) -> Rows:
    """Trainings on all cores: several runs packed, against the reference in its best setting, in turns."""
    from benchmarks import packed, throughput
    from benchmarks.packed import Forms

    rows = []
    cases = [
        (f"ResNet-{bench.depth} hierarchical-4", "hierarchical-4", bench.depth, (3, 32, 32), bench.batch, 1, 15),
        ("digits 8x8, ResNet-8", "individual", 8, (1, 8, 8), 64, 20, 40),
    ]
    for name, graph, depth, shape, batch, steps, rounds in cases:
        one = bench.song(graph, {"family": "cifar_resnet", "depth": depth}, batch)
        settings = [(bench.cores, 2), (1, 2), *([(bench.cores, 0), (1, 0)] if shape[1] == 8 else [])]
        forms: Forms = {"library": (one, "native"), "portable": (throughput.portable(one), "portable")}
        steps, rounds = (1, 1) if bench.quick else (steps, rounds)
        rates, (threads, workers), ratios = packed.end_to_end(
            forms, depth, graph, shape, settings, bench.cores, steps, rounds
        )
        chosen = f"{threads} threads, {workers} workers"
        row = [name, str(bench.cores), f"{rates['reference']:,.1f}", chosen]
        rows.append([*row, *(text for form in forms for text in (f"{rates[form]:,.1f}", f"{ratios[form]:.2f}"))])
    head = ["what", "runs at a time", "reference, images/s", "its best setting", "library, images/s", "ratio"]
    return [*head, "portable, images/s", "ratio, portable"], rows


def several_seeds(bench: Bench) -> Rows:
    """Eight seeds of ResNet-8 at once: images per second of all together."""
    from benchmarks import packed

    count, rows = 4 if bench.quick else 8, []
    for side, batch in ((8, 64), (16, 64)):
        steps = 1 if bench.quick else 4
        base = packed.seed_steps("loop", count, 1, side, batch, steps)
        cases = {
            "loop, one thread": base,
            "grouped convolution, one thread": packed.seed_steps("grouped", count, 1, side, batch, steps),
            "vmap, one thread": packed.seed_steps("vmap", count, 1, side, batch, 1),
            f"grouped convolution, {bench.cores} threads": packed.seed_steps(
                "grouped", count, bench.cores, side, batch, steps
            ),
            f"{bench.cores} processes of one thread, loop": packed.seeds_in_processes(
                count, bench.cores, side, batch, steps
            ),
        }
        import torch

        torch.set_num_threads(1)
        rows += [[f"{side}x{side}", name, f"{rate:,.0f}", f"{rate / base:.2f}"] for name, rate in cases.items()]
    return ["images", "form", "images/s", "× loop"], rows


def overhead(bench: Bench) -> Rows:
    """What a run costs beside training and evaluation, in a study of its own."""
    from collabench.study.runner import Runner
    from collabench.study.study import load_study

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(
            "datasets: {digits: {source: digits}}\nnoise: {clean: {kind: none}}\n"
            "models: {small: {family: cifar_resnet, depth: 8}}\n"
            f"recipes: {{r: {{epochs: {1 if bench.quick else 4}, batch_size: 64, learning_rate: 0.1}}}}\n"
            "methods: {individual: {method: individual}}\n"
            "profiles: {p: {description: overhead, seeds: 4, device: cpu, tables: "
            "[{name: t, datasets: [digits], models: [small], recipes: [r], methods: [individual]}]}}\n"
        )
        study = load_study(Path(folder), "p")
        study.inputs.prepare_datasets(lambda line: None)
        Runner(study).train(study.plan.runs[:1], device="cpu")
        begin = time.perf_counter()
        Runner(study).train(study.plan.runs[1:], device="cpu")
        wall = time.perf_counter() - begin
        from collabench.storage.files import read_json
        from collabench.storage.results import Measured

        parts = [read_json(study.workspace.measured_file(r), Measured) for r in study.plan.runs[1:]]
    pure = sum(part.train_seconds + part.evaluate_seconds for part in parts)
    each = (wall - pure) / len(parts)
    return ["what", "value"], [
        ["training and evaluation of one run", f"{pure / len(parts):.2f} s"],
        ["everything else of one run: building, writing, checksums", f"{each:.3f} s"],
        ["share of a run of 5 s (the default profile's are 2 to 11 s)", f"{each / 5:.1%}"],
    ]


def arithmetics(bench: Bench) -> Rows:
    """What portable arithmetic costs or gains beside torch's own."""
    from benchmarks import arithmetic

    return arithmetic.table(bench.quick)


def scaling(bench: Bench) -> Rows:
    """How planning, scheduling and reporting grow with the number of runs."""
    from benchmarks import scale

    return scale.measure(bench.quick, bench.cores)


SECTIONS: dict[str, Callable[[Bench], Rows]] = {
    "machine": machine,
    "throughput": throughput_section,
    "arithmetic": arithmetics,
    "floor": floor_section,
    "intra-model-losses": intra_model,
    "cost-of-collaboration": cost_of_collaboration,
    "input-pipeline": input_pipeline,
    "streaming": streaming,
    "end-to-end": end_to_end,
    "several-seeds": several_seeds,
    "overhead": overhead,
    "scale": scaling,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="tiny settings that only show that it works")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; sections: {', '.join(SECTIONS)}")
    if options.quick and options.write:
        parser.error("--quick gives numbers that mean nothing: they are not written")
    if hasattr(os, "sched_getaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])

    arithmetic.choose("native")  # before torch is imported
    import torch
    from tabulate import tabulate

    from collabench.training.device import prepare_process

    prepare_process(torch.device("cpu"))
    bench = Bench(options.quick, options.cores)
    for name in options.sections or SECTIONS:
        begin = time.perf_counter()
        head, rows = SECTIONS[name](bench)
        print(
            f"{name} ({time.perf_counter() - begin:.0f} s)\n{tabulate(rows, head, disable_numparse=True)}\n", flush=True
        )
        if options.write:
            write(name, tabulate(rows, head, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()

"""No setting is silently ignored: every field of every section changes what is computed, or is refused, or is declared
here.

Nothing here knows the fields: they come from the schemas. A field that is new must change something in one of its
section's bases, or say in :data:`CANNOT` why it cannot.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from collabench import data
from collabench.config import compatibility
from collabench.config.configuration import RequiredRun, Run
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.dataset_shape import shape_of
from collabench.config.params import Params
from collabench.config.plan import make_plan
from collabench.config.remotes import RemoteConfig
from collabench.config.sections import (
    Augmentation,
    EarlyStopping,
    ProfileConfig,
    RandAugment,
    RecipeConfig,
    TableConfig,
)
from collabench.core.errors import CollabenchError
from collabench.core.record import Record
from collabench.core.seeding import dropout_seed
from collabench.data import noise
from collabench.methods import METHODS, Batch, MethodSettings
from collabench.methods.song2018 import SplitSettings
from collabench.models import FAMILIES, Backbone, build_backbone
from collabench.models.dropout import assign_generators
from collabench.models.pretrained import PretrainedWeights, load_pretrained
from collabench.papers.claim_schema import Claim, Claims, ClaimScope, ClaimSource, Compared, FirstEffect, Replicated
from collabench.papers.replications import replicated_cells
from collabench.papers.tables import load_papers, plan_cells
from collabench.report.analyse import analyse
from collabench.report.collect import Collected
from collabench.training import train_run
from collabench.training.context import make_context, make_method
from collabench.training.optimizer import make_optimizer
from tests.support import official_formats
from tests.support.mutations import members
from tests.support.networks import make
from tests.support.synthetic import blobs, configuration_of, model_of

#: Of digits, which the configurations name; of the batches that a method sees, and how many, each in an epoch.
SHAPE, CLASSES, IMAGES, STEPS = (1, 8, 8), 10, 6, 2

#: (section, field) → why it changes no number.
CANNOT = {
    ("noise", "path"): "where the file lies; sha256 says which it is",
    ("datasets", "title"): "a name for people",
    ("datasets", "labels"): "words for people",
    ("datasets", "path"): "where the files lie; sha256 says which they are",
    ("datasets", "mirrors"): "where else the same archive can be fetched",
    ("datasets", "split_file"): "where the table lies; sha256 covers what it says",
    ("datasets", "test_path"): "where the test images lie; sha256 covers what they are",
    ("methods.kd", "teacher_file"): "where the file lies; teacher_sha256 says which it is",
    ("models.custom", "revision"): "stands for the code of a user's model, which no identity sees",
    ("recipes", "processes"): "refused unless so many processes share the run (docs/how-to/several-gpus.md)",
    ("recipes", "compile"): "refused on a CPU; on a GPU another rounding",
    ("tables", "title"): "a heading",
    ("profiles", "description"): "a text for people",
    ("profiles", "device"): "where the runs are trained",
    ("models.weights", "path"): "where the file lies; sha256 says which it is",
}

#: Sections of which no run is made, each with the reason.
OUTSIDE = {RemoteConfig: "where finished runs are fetched from"}

#: (section, field) → why some of its bases may take another value without a change, beside those in which it matters.
WITHOUT_EFFECT: dict[tuple[str, str], str] = {
    ("methods.fang2021", "input_descriptor"): "pixels are the default for images of one channel",
    ("noise", "kind"): "pair is asymmetric noise with the pairs that it has by default where no look-alikes are known",
    ("recipes", "epochs"): "matters unless early_stopping ends the training before",
    ("recipes", "early_stopping"): "matters where the validation error ends the training before its last epoch",
    ("recipes", "last_batch"): "matters where the images of an epoch leave a tiny last batch",
    ("methods.dml", "networks"): "beside peers it may say how many there are; another number is refused",
    ("methods.wang2018", "networks"): "beside peers it may say how many there are; another number is refused",
}


@dataclass(frozen=True)
class Section:
    """What is tried of one section.

    bases: entries in which settings can matter. compute: what the entry makes, as something that can be compared.
    identity: what enters the ids of the runs. values: what is tried of a field whose type does not tell. chosen: fields
    that say of which kind the entry is.
    """

    name: str
    kind: type[Record]
    bases: tuple[dict[str, Any], ...]
    compute: Callable[[Any], Any]
    identity: Callable[[Any], Any] | None = None
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()


@dataclass
class Found:
    """Field → how often another value of it changed what is computed, was refused, or was ignored (and where)."""

    changed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    wrong_identity: list[str] = field(default_factory=list)


def others(section: Section, name: str, current: Any) -> tuple[Any, ...]:
    """Other values of a field: of a switch all, of a number a smaller and a larger one, else those that the section
    names."""
    info = section.kind.model_fields[name]
    tried = section.values.get(name)
    if tried is None:
        tried = tuple(
            value for member in members(info.annotation, tuple(info.metadata)) for value in typical(member, current)
        )
        assert tried, f"{section.name}.{name}: say in values what of it is tried"
    return tuple(value for value in tried if value != current or type(value) is not type(current))


def typical(member: Any, current: Any) -> tuple[Any, ...]:
    kind = member.kind
    if kind is bool:
        return (False, True)
    if kind is NoneType:
        return (None,)
    if get_origin(kind) is Literal:
        return get_args(kind)
    if kind is int:
        near = current if isinstance(current, int) else member.constraints.get("ge", 1)
        return (near + 1, near - 1, 2 * near)
    if kind is float:
        return (0.4 * current, current + 0.3) if current else (0.3,)
    return ()


def attempt(section: Section, values: dict[str, Any]) -> tuple[Any, Any] | None:
    """(what is computed, what enters identities), or None where the entry is refused."""
    try:
        entry = section.kind(**values)
        return section.compute(entry), section.identity(entry) if section.identity else None
    except (ValidationError, CollabenchError, ValueError):
        return None


def examine(section: Section) -> Found:
    """Change every field of the section alone, in each of its bases."""
    found = Found()
    for base in section.bases:
        before = attempt(section, base)
        assert before is not None, f"{section.name}: the base {base} is refused"
        entry = section.kind(**base)
        for name in section.kind.model_fields:
            if name in section.chosen:
                continue
            alias = section.kind.model_fields[name].alias or name
            for value in others(section, name, getattr(entry, name)):
                after = attempt(section, base | {alias: value})
                where = f"{section.name}.{name}: {value!r} beside {base}"
                if after is None:
                    found.refused[name] += 1
                elif after[0] != before[0]:
                    found.changed[name] += 1
                    if section.identity and after[1] == before[1]:
                        found.wrong_identity.append(f"{where} changes numbers and no id")
                    if type(value) in (int, float):
                        break  # of a number one other value is enough
                else:
                    found.ignored.setdefault(name, []).append(where)
    return found


def problems(section: Section, found: Found) -> Iterator[str]:
    yield from found.wrong_identity
    for name in section.kind.model_fields:
        if name in section.chosen:
            continue
        key = (section.name, name)
        if key in CANNOT:
            if found.changed[name]:
                yield f"{section.name}.{name} is declared as one that changes nothing, and changes something"
        elif not found.changed[name] and (not found.refused[name] or name in found.ignored):
            yield f"{section.name}.{name} changes nothing that is computed, and is not refused"
        elif key not in WITHOUT_EFFECT:
            yield from found.ignored.get(name, ())


# ------------------------------------------------------------------------------------------------- what is computed


def digest_of(tensors: Iterable[torch.Tensor]) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


class Sources:
    """Tiny files in the official formats of the data sets, and what is read of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.downloads = folder / "downloads"
        self.official = {
            "cifar10": official_formats.write_cifar10(self.downloads, 10),
            "cifar100": official_formats.write_cifar100(self.downloads),
            "stl10": official_formats.write_stl10(self.downloads),
            "svhn": official_formats.write_svhn(self.downloads / "svhn"),
            "imagenette": official_formats.write_imagenette(self.downloads, turned=True),
        }
        for source in ("mnist", "fashion_mnist", "kmnist"):
            self.official[source] = official_formats.write_mnist(self.downloads / source, source)
        pins = {
            "imagenet32": official_formats.write_imagenet32(folder / "imagenet32", 4, test_images=9),
            "imagenet": official_formats.write_imagenet(folder / "imagenet", 4, train=5, test=3, turned=True),
            "images": official_formats.write_images(folder / "images", train=9, test=5, turned=True),
        }
        official_formats.write_tiny_imagenet(folder / "tiny_imagenet", 4, train=5, test=3, turned=True)
        official_formats.write_medmnist(folder / "medmnist")
        (folder / "medmnist.npz").rename(folder / "medmnist")  # savez adds an ending
        for source in ("tiny_imagenet", "medmnist"):
            pins[source] = data.source_digest(DatasetConfig(source=source, path=str(folder / source)))
        self.placed = {source: {"path": str(folder / source), "sha256": pin} for source, pin in pins.items()}

    def prepared(self, entry: DatasetConfig) -> tuple[Any, ...]:
        self.count += 1
        manifest = data.prepare(entry, self.downloads, self.folder / f"prepared-{self.count}", official=self.official)
        known = shape_of(entry)
        if known is not None:
            assert known.shape == manifest.form.shape, (
                f"{entry} promises {known.shape}, its reader gives {manifest.form.shape}"
            )
        drawn = ()
        if entry.split == "per_seed":
            folder = self.folder / f"prepared-{self.count}"
            seen = data.split_for_seed(data.load(folder, data.path_of(entry, None)), entry, 3)
            drawn = (digest_of([seen.train_labels, seen.test_labels]), seen.mean)
        return manifest.digest, manifest.form, manifest.mean, manifest.resize, drawn


def noisy_labels(entry: NoiseConfig) -> tuple[Any, ...]:
    labels = torch.arange(60) % 10
    classes = tuple("0123456789")
    epochs = (None, None) if entry.is_static else (0, 1)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8))
    seen = noise.Seen(pixels, (0.5,), (0.3,))
    drawn = [noise.draw(entry, labels, classes, 0, epoch, seen=seen) for epoch in epochs]
    return digest_of(one.noisy for one in drawn), digest_of(one.mask for one in drawn)


def network(shape: tuple[int, int, int], device: str) -> Callable[[Record], Any]:
    """Layers, stages and initial weights; on the device ``meta`` names and shapes alone."""

    def compute(entry: Record) -> tuple[Any, ...]:
        with torch.device(device):
            backbone = build_backbone(entry, shape, CLASSES, 0)
        if entry.weights is not None:
            load_pretrained(backbone, entry.weights)
        state = backbone.state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        return (
            repr(backbone),
            list(backbone.stages.items()),
            shapes,
            digest_of(state.values()) if device == "cpu" else "",
        )

    return compute


NOISY = NoiseConfig(kind="uniform", rate=0.3, when="per_epoch")
RESIDUAL = {"family": "cifar_resnet", "depth": 8, "width": 2}


@cache
def few_images() -> data.Dataset:
    return blobs(train=24, test=12)


def trained(entry: RecipeConfig) -> tuple[Any, ...]:
    """A run of the recipe, and the batches that it is evaluated in."""
    configuration = configuration_of(METHODS["individual"].Settings(method="individual"), model_of(VGG), NOISY)
    configuration = configuration.model_copy(update={"recipe": entry})
    compatibility.check(configuration)
    dataset = few_images()
    run = train_run(Run(configuration, 0), dataset, device=torch.device("cpu"))
    batches = data.open_evaluation_batches(dataset, "test", entry.augmentation, entry.evaluation_batch_size, "cpu")
    curves = run.result.curves
    return (
        digest_of(run.weights.values()), digest_of(run.logits.values()), curves.learning_rate, curves.losses,
        curves.test_error, curves.validation_error, run.result.train_images, [len(batch) for batch in batches],
    )  # fmt: skip


VGG = {"family": "vgg", "blocks": (1, 1, 1), "width": 3, "poolings": 1, "hidden": 6}
RESNET = {"family": "resnet", "blocks": (1, 1), "width": 3, "hidden": 6}
PEERS = {"first": {"family": "cifar_resnet", "depth": 8, "width": 3}, "second": VGG | {"width": 4}}


def learned(model: dict[str, Any]) -> Callable[[MethodSettings], Any]:
    """A step of a method on a model: losses, weights, logits of all heads and of what is deployed, and what it needs
    first."""

    def compute(entry: MethodSettings) -> tuple[Any, ...]:
        plain = configuration_of(METHODS["individual"].Settings(method="individual"), model_of(model))
        needs = entry.requires()
        named = {name for _, section, name in entry.references() if section == "models"}
        configuration = configuration_of(
            entry,
            model_of(model),
            requires=tuple(RequiredRun(configuration=plain, member=one.member) for one in needs),
            peer_models={name: model_of(PEERS[name]) for name in sorted(named)},
        )

        def backbone(name: str | None = None) -> Backbone:
            return build_backbone(
                model_of(model) if name is None else configuration.peer_models[name], SHAPE, CLASSES, 0
            )

        compatibility.check_settings_have_effect(entry)
        for name in (None, *configuration.peer_models):
            entry.check_fits(backbone(name), "float32", SHAPE)
        entry.check_files(backbone)
        seeds = [one.member + 1 for one in needs]
        teachers = [build_backbone(model_of(model), SHAPE, CLASSES, seed).eval() for seed in seeds]
        method = make_method(configuration, make_context(configuration, SHAPE, CLASSES, 0, teachers))
        built = method.build().train()
        for number, generator in assign_generators(built, torch.device("cpu")).items():
            generator.manual_seed(dropout_seed(0, 0, number))
        draws = torch.Generator().manual_seed(0)
        parameters = list(built.parameters())
        optimizer = make_optimizer(parameters, configuration.recipe)

        def update(loss: torch.Tensor, chosen: Any = None) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=None if chosen is None else list(chosen))
            optimizer.step()

        terms = []
        for epoch in range(STEPS if method.trains else 0):
            images = torch.randn(IMAGES, *SHAPE, generator=draws)
            batch = Batch(images, torch.randint(0, CLASSES, (IMAGES,), generator=draws), draws, epoch)
            terms.append({name: term.item() for name, term in method.step(built, batch, update).items()})
            assert all(map(math.isfinite, terms[-1].values()))
        built.eval()
        images = torch.randn(IMAGES, *SHAPE, generator=draws)
        with torch.no_grad():
            logits = (method.predict(built, images), method.deploy(built).eval()(images))
        return needs, terms, digest_of(built.state_dict().values()), digest_of(logits)

    return compute


def params_with(profile: ProfileConfig) -> Params:
    individual = METHODS["individual"].Settings(method="individual")
    smooth = METHODS["individual"].Settings(method="individual", label_smoothing=0.1)
    recipe = RecipeConfig(epochs=1, batch_size=8, learning_rate=0.1)
    return Params(
        datasets={"digits": DatasetConfig(source="digits"), "few": DatasetConfig(source="digits", train_images=90)},
        noise={"clean": NoiseConfig(kind="none"), "noisy": NOISY},
        models={"small": model_of(RESIDUAL), "large": model_of(RESIDUAL | {"width": 4})},
        recipes={"short": recipe, "long": recipe.model_copy(update={"epochs": 2})},
        methods={"individual": individual, "smooth": smooth},
        profiles={"tiny": profile, "first": ProfileConfig(description="f", seeds=2, first_seed=500, papers=("paper",))},
    )


def repeated() -> Claims:
    """A claim that the profile ``first`` has decided and that ``tiny`` may test again."""
    names = {"dataset": "few", "noise": ("noisy",), "model": "small", "recipe": "short", "smallest_effect": 0.1}
    claim = Claim(
        id="one", paper="paper", statement="S.", source=ClaimSource(file="000_0.txt", place="P", words="W"),
        quantity="error", hypothesis="lower", compare=(Compared(method="smooth", baseline="individual"),),
        scopes=("here",),
    )  # fmt: skip
    effect = FirstEffect(compared="smooth against individual", estimate=-1.0, low=-2.0, high=-0.5)
    again = Replicated(
        profile="first", claim="one", scope="here", verdict="supported", seeds=5, effects=(effect,)
    )  # fmt: skip
    claims = Claims(scopes={"here": ClaimScope(profile="first", **names)}, claims=(claim,))
    return claims.with_replications({"tiny": (again,)})


#: A paper with one value, which the profile may name.
PAPER = {
    "paper.yaml": "{title: A paper, authors: Somebody, published: somewhere, sources: {text.txt: all of it}}\n",
    "one.yaml": "kind: table\ntitle: T\nmetric: top1_error\nprotocol: {runs: 1, epoch: last}\nrow_titles: [R]\n"
    "source: {file: text.txt, table: T}\ncolumns: {c: {title: c}}\nrows: {r: {labels: [r], values: {c: 1.0}}}\n"
    "configuration: {dataset: few, noise: clean, model: small, recipe: short, method: smooth}\n",
}


def planned(papers: Path) -> Callable[[ProfileConfig], Any]:
    """Runs in their order, and what the report compares, without its headings."""

    def compute(entry: ProfileConfig) -> tuple[Any, ...]:
        params = params_with(entry)
        read = load_papers(papers, params, entry.papers) if entry.papers else {}
        cells = list(plan_cells(read, entry.seed_range(), entry.datasets))
        cells += replicated_cells(repeated(), params, "tiny") if entry.replicates else []
        plan = make_plan(params, "tiny", cells)
        tables = analyse(params, Collected(plan, {}, {}, ()), partial=True).tables
        return [run.id for run in plan.runs], plan.cells, [table.model_dump(exclude={"title"}) for table in tables]

    return compute


# ------------------------------------------------------------------------------------------------------ the sections

TABLE = {"name": "one", "datasets": ("digits",), "models": ("small",), "recipes": ("short",),
         "methods": ("individual", "smooth")}  # fmt: skip
NAMES = {"datasets": (("few",), ("digits", "few")), "noise": (("noisy",), ("clean", "noisy")), "models": (("large",),),
         "recipes": (("long",),), "methods": (("individual",),), "baseline": ("smooth",), "family": ("all", "two"),
         "title": ("Another",), "name": ("other",)}  # fmt: skip


def table_section(compute: Callable[[ProfileConfig], Any]) -> Section:
    def of_table(entry: TableConfig) -> Any:
        second = TableConfig(**TABLE | {"name": "two"})
        return compute(ProfileConfig(description="d", seeds=3, tables=(entry, second)))

    return Section("tables", TableConfig, (TABLE,), of_table, values=NAMES)


def profile_section(compute: Callable[[ProfileConfig], Any]) -> Section:
    one = TableConfig(**TABLE)
    base = {"description": "d", "seeds": 3, "seeds_per_job": 2, "tables": (one,)}
    values = {"description": ("another",), "tables": ((one.model_copy(update={"methods": ("individual",)}),),),
              "papers": (("paper",),), "replicates": (("first",),), "datasets": (("digits",),),
              "union_of": (("first",),)}  # fmt: skip
    return Section("profiles", ProfileConfig, (base, base | {"papers": ("paper",)}), compute, values=values)


def dataset_sections(sources: Sources) -> Iterator[Section]:
    values = {"title": ("Another",), "path": ("elsewhere",), "sha256": ("0" * 64, None), "resize": (16,),
              "mirrors": (("https://mirror.example/archive.tar.gz",),), "train_images": (12, 16), "test_images": (4,
              8), "test_fraction": (0.3, 0.5), "split_file": ("elsewhere",), "test_path": ("elsewhere",)}  # fmt: skip
    for source in get_args(DatasetConfig.model_fields["source"].annotation):
        base = {
            "source": source,
            **sources.placed.get(source, {}),
            **({"resize": 12} if source == "imagenette" else {}),
        }
        bases = [base, base | {"train_images": 14 if source != "digits" else 100}]
        if source == "digits":
            bases.append(bases[1] | {"test_on_rest": True})
            bases.append(bases[2] | {"test_images": 40})
            bases.append(bases[3] | {"split": "per_seed"})
        if source in ("images", "imagenet"):
            bases.append(base | {"resize": 12})
        if source == "imagenet32":
            bases = [base | {"train_images": 4}]
        if source == "images":
            undivided = {"source": "images", "path": str(sources.folder / "images/train"), "test_fraction": 0.4}
            pin = data.source_digest(DatasetConfig(**undivided))
            bases.append(undivided | {"sha256": pin})
        changed = values | ({"train_images": (120, 200), "test_images": (50, 70)} if source == "digits" else {})
        yield Section(
            "datasets", DatasetConfig, tuple(bases), sources.prepared, DatasetConfig.identity, changed, ("source",)
        )


RECIPE = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "evaluation_batch_size": 5}
RECIPES = Section(
    "recipes", RecipeConfig,
    (
        RECIPE,
        RECIPE | {"epochs": 3, "milestones": (1,), "nesterov": True, "weight_decay": 1e-2, },
        RECIPE | {"validation_fraction": 0.4, "momentum": 0.5, "validation_noisy": True},
        RECIPE | {"batch_size": 7},  # leaves a tiny last batch
        RECIPE | {"optimizer": "adamw", "schedule": "cosine", "ema_decay": 0.5, "epochs": 3},
        RECIPE | {"schedule": "one_cycle", "mixup_alpha": 0.5, "clip_gradient_norm": 0.2},
        RECIPE | {"epochs": 5, "validation_fraction": 0.4, "early_stopping": EarlyStopping(patience=1)},
    ),
    trained, RecipeConfig.identity,
    {
        "milestones": ((1,), (1, 2)), "augmentation": (Augmentation(shift=1),), "betas": ((0.5, 0.999), (0.9, 0.5)),
        "clip_gradient_norm": (None, 0.05), "eps": (1e-2,), "ema_decay": (None, 0.3), "mixup_alpha": (None, 0.8),
        "early_stopping": (None, EarlyStopping(patience=1), EarlyStopping(patience=3)),
    },
)  # fmt: skip
AUGMENTATIONS = Section(
    "recipes.augmentation", Augmentation, ({}, {"flip": True, "shift": 1}, {"flip": True, "random_resized_crop": 8}),
    lambda entry: trained(RecipeConfig(**RECIPE, augmentation=entry)), Augmentation.model_dump,
    {"random_resized_crop": (10,), "randaugment": (RandAugment(),)},
)  # fmt: skip
RANDAUGMENTS = Section(
    "recipes.augmentation.randaugment", RandAugment, ({}, {"operations": 1, "magnitude": 20}),
    lambda entry: trained(RecipeConfig(**RECIPE, augmentation=Augmentation(randaugment=entry))), RandAugment.model_dump,
)  # fmt: skip
EARLY_STOPPING = Section(
    "recipes.early_stopping", EarlyStopping, ({"patience": 1},),
    lambda entry: trained(RecipeConfig(**RECIPE | {"epochs": 5}, validation_fraction=0.4, early_stopping=entry)),
    EarlyStopping.model_dump,
)  # fmt: skip


#: Method → entries in which its settings can matter, each with the model.
METHOD_BASES: dict[str, tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = {
    "song2018": (
        ({}, VGG),
        ({"optimisation": "alternating"}, VGG),
        ({"splits": ({"after": "block1", "branches": 2},)}, VGG),
        ({"beta": 0.0}, VGG),
        ({"beta": 1.0, "optimisation": "alternating"}, VGG),
        ({"graph": "multi_instance", "optimisation": "alternating"}, VGG),
        ({"graph": "individual"}, VGG),
    ),
    "kd": (
        ({}, VGG),
        ({"teacher_members": 2}, VGG),
        ({"weight": 0.0}, VGG),
        ({"weight": 1.0}, VGG),
        ({"teacher_model": "second"}, VGG),
    ),
    "dml": (
        ({}, VGG),
        ({"weight": 0.0}, VGG),
        ({"optimisation": "in_turn"}, VGG),
        ({"networks": 3}, VGG),
        ({"peers": ("first",)}, VGG),
    ),
    "auxiliary": (({}, VGG), ({"after": "every"}, VGG)),
    "wang2018": (({}, VGG), ({"consensus_weight": 1.0, "networks": 3}, VGG), ({"peers": ("first", "second")}, VGG)),
    "one": (({}, VGG), ({"weight": 0.0}, VGG), ({"ramp_epochs": 3}, VGG)),
    "okddip": (
        ({}, VGG),
        ({"peer_weight": 0.0, "leader_weight": 0.0}, VGG),
        ({"ramp_epochs": 3, "attention_divisor": 2}, VGG),
    ),
    "fang2021": (
        ({}, VGG),
        ({"losses": ("out",), "out_alpha": 1.0}, VGG),
        ({"losses": ("mid", "kernel"), "mid_beta": 0.0, "kernel_weight": 0.0}, VGG),
        ({"kernel_groups": 1, "kernel_shortcuts": True}, RESNET),
        ({"losses": ("mid",), "mid_include_own": True}, VGG),
        ({"losses": ("out",), "out_added": True}, VGG),
        ({"losses": ("pull_push",), "input_descriptor": "pixels"}, VGG),
    ),
}
METHOD_VALUES: dict[str, tuple[Any, ...]] = {
    "split_after": (("block1",), ("block1", "block3"), "block1"),
    "splits": (({"after": "block2", "branches": 2},), ({"after": "block1", "branches": 3},)),
    "heads": (2, 3, 8),
    "after": (("block1",), ("block2",), "every"),
    "ramp_of": (None, 3),
    "peers": (("first",), ("second",), ("second", "first")),
    "losses": (("out",), ("mid", "kernel")),
    "of": ("other",),
    "teacher": ("other",),
    "teacher_model": ("first",),
    "teacher_recipe": ("other",),
    "teacher_file": ("elsewhere.safetensors",),
    "teacher_sha256": ("0" * 64,),
    "projection_channels": (1, 5),
    "mid_side": (1, 2),
    "mid_channels": (1, 2),
    "kernel_groups": (None, 1, 3),
}


def method_identity(entry: MethodSettings) -> Any:
    """Names stand for the runs and models that they name."""
    return entry.identity(), entry.requires(), entry.references()


def method_sections(teacher: Path) -> Iterator[Section]:
    for name, module in METHODS.items():
        bases = METHOD_BASES.get(name, (({}, VGG),))
        if name == "kd":
            weights = build_backbone(model_of(VGG), SHAPE, CLASSES, 7).state_dict()
            safetensors.torch.save_file(weights, teacher)
            sha256 = hashlib.sha256(teacher.read_bytes()).hexdigest()
            bases = (*bases, ({"teacher_file": str(teacher), "teacher_sha256": sha256}, VGG))
        for values, model in bases:
            base = {"method": name, **values}
            yield Section(
                f"methods.{name}", module.Settings, (base,), learned(model), method_identity, METHOD_VALUES, ("method",)
            )


SPLITS = Section(
    "methods.song2018.splits", SplitSettings, ({"after": "block1", "branches": 2},),
    lambda entry: learned(VGG)(METHODS["song2018"].Settings(method="song2018", splits=(entry,))),
    SplitSettings.model_dump, {"after": ("block2", "no-such-block")},
)  # fmt: skip


def weights_section(folder: Path) -> Section:
    """The weights of a file that a network begins with."""
    path, copy = folder / "weights.safetensors", folder / "copy.safetensors"
    state = build_backbone(model_of(VGG), SHAPE, CLASSES, 7).state_dict()
    safetensors.torch.save_file(state, path)
    shutil.copyfile(path, copy)
    base = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def compute(entry: PretrainedWeights) -> Any:
        return network(SHAPE, "cpu")(model_of(VGG | {"weights": entry}))

    values = {
        "path": (str(copy), "/nowhere"),
        "sha256": ("0" * 64,),
        "fresh": (("classifier",), ("no-such-module",), ("pool",)),
    }
    return Section("models.weights", PretrainedWeights, (base,), compute, PretrainedWeights.identity, values)


CHAIN = {"body": ("conv",), "pool": ("pool", "flatten"), "classifier": ("fc",)}
#: Family → shape of the images, device, entries in which its settings can matter.
MODEL_BASES: dict[str, tuple[tuple[int, int, int], str, tuple[dict[str, Any], ...]]] = {
    "cifar_resnet": (SHAPE, "cpu", ({"depth": 8, "width": 3},)),
    "densenet": (
        SHAPE, "cpu",
        (
            {"depth": 10, "growth": 3},
            {"depth": 10, "growth": 3, "bottleneck": True, "compression": 0.5},
            {"depth": 10, "growth": 3, "dropout": 0.2},
        ),
    ),
    "vgg": ((1, 32, 32), "cpu", ({"depth": 11, "width": 2, "hidden": 4}, {"blocks": (1, 1), "width": 4, "poolings": 1,
    "hidden": 4})),
    "resnet": ((1, 16, 16), "cpu", ({"depth": 18, "width": 2, "hidden": 4}, {"blocks": (1, 1), "width": 4,
    "hidden": 4})),
    "preact_resnet": (SHAPE, "cpu", ({"depth": 18, "width": 2}, {"blocks": (1, 1), "width": 4})),
    "wide_resnet": (SHAPE, "cpu", ({"depth": 10, "widening": 1}, {"depth": 16, "widening": 1, "dropout": 0.2})),
    "torchvision_model": (
        (3, 64, 64), "meta",
        ({"name": "resnet18"},),
    ),
    "timm": ((3, 64, 64), "meta", ({"name": "resnet18"},)),
    "custom": (SHAPE, "cpu", ({"import": "made_up_networks:make", "arguments": {"width": 3}, "stages": CHAIN},)),
}  # fmt: skip
MODEL_VALUES: dict[str, tuple[Any, ...]] = {
    "depth": (None, 8, 10, 13, 14, 16, 34),
    "blocks": ((2, 1), None),
    "poolings": (0, 2),
    "compression": (0.5, 0.7),
    "name": ("resnet34",),
    "stages": (
        {"conv": ("conv",), "rest": ("pool", "flatten"), "classifier": ("fc",)},
        {"stem": ("conv1", "bn1", "relu", "maxpool"), "rest": ("layer1", "layer2", "layer3", "layer4", "avgpool",
            "flatten"),
         "classifier": ("fc",)},
    ),
    "import_": ("made_up_networks:make_another",),
    "arguments": ({"width": 5},),
    "weights": (PretrainedWeights(path="/nowhere/weights.safetensors", sha256="0" * 64),),
}  # fmt: skip


def model_sections() -> Iterator[Section]:
    for family, module in FAMILIES.items():
        if family == "timm" and find_spec("timm") is None:
            continue  # an optional package
        shape, device, bases = MODEL_BASES[family]
        entries = tuple({"family": family, **base} for base in bases)
        yield Section(
            f"models.{family}",
            module.Settings,
            entries,
            network(shape, device),
            Record.model_dump,
            MODEL_VALUES,
            ("family",),
        )


MATRIX = tuple(tuple(0.7 if column == row else 0.3 / 9 for column in range(10)) for row in range(10))
ANOTHER_MATRIX = tuple(tuple(0.4 if column == row else 0.6 / 9 for column in range(10)) for row in range(10))


def noise_section(folder: Path) -> Section:
    labels = folder / "labels.csv"
    labels.write_text("first,second\n" + "".join(f"{n % 9},{n % 8}\n" for n in range(60)))
    rows = folder / "matrix.csv"
    rows.write_text("".join(",".join(map(str, row)) + "\n" for row in MATRIX))
    copy = folder / "copy.csv"
    shutil.copyfile(labels, copy)
    pins = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (labels, rows)}
    return Section(
        "noise", NoiseConfig,
        (
            {"kind": "uniform", "rate": 0.3},
            {"kind": "uniform", "rate": 1.0, "when": "per_epoch"},
            {"kind": "symmetric", "rate": 0.3, "when": "per_epoch", "count": "bernoulli"},
            {"kind": "asymmetric", "rate": 0.4, "when": "per_epoch", "hit": "fixed"},
            {"kind": "pair", "rate": 0.4},
            {"kind": "instance", "rate": 0.4},
            {"kind": "matrix", "rows": MATRIX, "when": "per_epoch"},
            {"kind": "matrix", "path": str(rows), "sha256": pins[rows]},
            {"kind": "file", "path": str(labels), "sha256": pins[labels], "key": "first"},
        ),
        noisy_labels, NoiseConfig.identity,
        {
            "pairs": ({"1": "7"},), "rows": (ANOTHER_MATRIX,), "path": (str(copy), str(folder / "none.csv")),
            "sha256": ("0" * 64,), "key": ("second", "third"),
        },
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module", autouse=True)
def made_up_networks():
    """A module with a user's own models."""
    module = types.ModuleType("made_up_networks")
    module.make = make
    module.make_another = lambda input_shape, classes, width: make(input_shape, classes, width + 1)
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


def assert_nothing_is_ignored(sections: Iterable[Section]) -> None:
    """Sections of one name are bases of the same kind."""
    together: dict[str, tuple[Section, Found]] = {}
    for section in sections:
        assert issubclass(section.kind, KINDS[section.name])
        _, found = together.setdefault(section.name, (section, Found()))
        one = examine(section)
        found.changed.update(one.changed)
        found.refused.update(one.refused)
        found.wrong_identity += one.wrong_identity
        for name, where in one.ignored.items():
            found.ignored.setdefault(name, []).extend(where)
    told = [line for section, found in together.values() for line in problems(section, found)]
    assert not told, "\n" + "\n".join(told)


#: One of each kind on every commit; the others, and the sections that take long, with the slow tests.
QUICK = ("kd", "dml", "individual", "ensemble")


def test_of_noise(tmp_path):
    assert_nothing_is_ignored([noise_section(tmp_path)])


@pytest.mark.slow
def test_of_data_sets(tmp_path):
    assert_nothing_is_ignored(dataset_sections(Sources(tmp_path)))


@pytest.mark.slow
def test_of_models():
    assert_nothing_is_ignored(model_sections())


def test_of_what_entries_hold(tmp_path):
    assert_nothing_is_ignored([SPLITS, weights_section(tmp_path)])


@pytest.mark.slow
def test_of_recipes():
    assert_nothing_is_ignored([RECIPES, AUGMENTATIONS, RANDAUGMENTS, EARLY_STOPPING])


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS]
)
def test_of_methods(tmp_path, method):
    sections = method_sections(tmp_path / "teacher.safetensors")
    assert_nothing_is_ignored(section for section in sections if section.name == f"methods.{method}")


def test_of_tables_and_profiles(tmp_path):
    (tmp_path / "paper").mkdir()
    for name, content in PAPER.items():
        (tmp_path / "paper" / name).write_text(content)
    compute = planned(tmp_path)
    assert_nothing_is_ignored([table_section(compute), profile_section(compute)])


class Planted(METHODS["individual"].Settings):
    """A section with a setting that nothing reads."""

    smoothness: float = 0.5


def test_a_planted_setting_that_nothing_reads_is_found():
    section = Section("methods.individual", Planted, ({"method": "individual"},), learned(VGG), chosen=("method",))
    with pytest.raises(AssertionError, match=r"methods\.individual.smoothness changes nothing that is computed"):
        assert_nothing_is_ignored([section])


#: Section → its schema.
KINDS: dict[str, type[Record]] = {
    "datasets": DatasetConfig, "noise": NoiseConfig,
    **{f"models.{name}": module.Settings for name, module in FAMILIES.items()},
    "models.weights": PretrainedWeights,
    "recipes": RecipeConfig, "recipes.augmentation": Augmentation, "recipes.augmentation.randaugment": RandAugment,
    "recipes.early_stopping": EarlyStopping,
    **{f"methods.{name}": module.Settings for name, module in METHODS.items()},
    "methods.song2018.splits": SplitSettings,
    "profiles": ProfileConfig, "tables": TableConfig,
}  # fmt: skip


def schemas_below(annotation: Any) -> Iterator[type[Record]]:
    """The schemas that a value of the annotated type consists of, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
        for info in annotation.model_fields.values():
            yield from schemas_below(info.annotation)
    else:
        for part in get_args(annotation):
            yield from schemas_below(part)


def test_every_schema_below_params_yaml_is_a_section_here():
    assert set(schemas_below(Params)) - {Params} == {*KINDS.values(), *OUTSIDE}


def test_every_declaration_is_about_a_field_that_there_is():
    for section, name in (*CANNOT, *WITHOUT_EFFECT):
        assert name in KINDS[section].model_fields, f"{section}.{name} is gone"

"""The inputs of runs: prepared data sets and static noisy labels."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.batch_sizes import held_out, remaining_images
from collabench.config.configuration import Configuration, Run, dataset_key, digest, noise_key
from collabench.config.dataset_shape import DatasetShape, as_asked, shape_of
from collabench.config.plan import Plan
from collabench.core.errors import ConfigError, Log, ResultError
from collabench.methods import METHODS
from collabench.storage.files import read_json, write_atomically
from collabench.storage.locks import holding
from collabench.storage.workspace import Workspace

if TYPE_CHECKING:
    from collabench import data


class Inputs:
    """The prepared data sets and the static noisy labels of a plan."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self._plan, self._workspace = plan, workspace
        self._loaded: tuple[str, data.Dataset] | None = None
        self._split: tuple[tuple[str, int, str], data.Dataset] | None = None
        self._remarked: set[str | None] = set()

    def dataset_keys(self) -> list[str]:
        """Keys (:func:`collabench.config.configuration.dataset_key`) of the plan's data sets."""
        return sorted(self._by_dataset())

    def _by_dataset(self) -> dict[str, Configuration]:
        return {dataset_key(c.dataset): c for c in reversed(self._plan.configurations.values())}

    def missing_datasets(self) -> dict[str, str]:
        """Key → one line, for each data set of the plan whose files the user must still provide or pin."""
        from collabench import data

        missing = {}
        for key, configuration in self._by_dataset().items():
            folder = self._workspace.datasets / key
            line = data.what_is_missing(configuration.dataset, self._workspace.base_of_data, folder)
            if line is not None:
                missing[key] = f"data set {configuration.names['dataset']}: {line}"
        return missing

    def without_missing_data(self, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
        """The runs whose data sets exist or can be downloaded, and one line for each data set that the other runs
        lack."""
        missing = self.missing_datasets()
        possible = [run for run in runs if dataset_key(run.configuration.dataset) not in missing]
        lacking = {dataset_key(run.configuration.dataset) for run in runs} & missing.keys()
        return possible, [missing[key] for key in sorted(lacking)]

    def prepare_for(self, runs: Iterable[Run], log: Log = print) -> None:
        """Prepare the data sets and the static noisy labels that ``runs`` need."""
        keys = {dataset_key(run.configuration.dataset) for run in runs}
        self.prepare_datasets(log, keys)
        noisy = self.noise_files().items()
        self.prepare_noise(log, [key for key, users in noisy if dataset_key(users[0].configuration.dataset) in keys])

    def prepare_datasets(self, log: Log = print, keys: Iterable[str] | None = None) -> None:
        """Download, verify and cache the data sets of the plan, or those of ``keys``. Existing ones are skipped."""
        for key, configuration in self._by_dataset().items():
            if keys is None or key in keys:
                self.prepare_dataset(key, configuration, log)

    def prepare_dataset(self, key: str, configuration: Configuration | None = None, log: Log = print) -> None:
        """Prepare the data set of this key (:func:`collabench.config.configuration.dataset_key`)."""
        from collabench import data

        configuration = configuration or self._by_dataset().get(key)
        if configuration is None:
            raise self._changed(f"the data set {key}")
        folder = self._workspace.datasets / key
        with self._preparing(key, log):
            if not folder.exists():
                self._link_dataset(key, folder)
            data.prepare(
                configuration.dataset,
                self._workspace.downloads,
                folder,
                progress=log,
                root=self._workspace.base_of_data,
                bad_files=self._workspace.state / f"{key}-bad-files.txt",
            )

    def _changed(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self._workspace.params}: was changed while the study began: it no longer has {what}; start again"
        )

    def _preparing(self, key: str, log: Log) -> AbstractContextManager[None]:
        return holding(self._workspace.lock(f"dataset-{key}"), f"data set {key}", log)

    def _link_dataset(self, key: str, folder: Path) -> None:
        for sibling in self._workspace.siblings():
            if (sibling.datasets / key).is_dir():
                link_files(sibling.datasets / key, folder, sorted(p.name for p in (sibling.datasets / key).iterdir()))
                return

    def dataset(self, run: Run, log: Log = print) -> data.Dataset:
        """The prepared data set of a run, prepared again if it is damaged. The last one stays loaded."""
        from collabench import data

        config = run.configuration.dataset
        whole = self._whole_dataset(run.configuration, log)
        if config.split == "fixed":
            return whole
        drawn = (digest(config.identity()), run.data_seed, whole.digest)
        if self._split is None or self._split[0] != drawn:
            self._split = (drawn, data.split_for_seed(whole, config, run.data_seed))
        return self._split[1]

    def _whole_dataset(self, configuration: Configuration, log: Log) -> data.Dataset:
        from collabench import data
        from collabench.core.errors import DataError

        key = dataset_key(configuration.dataset)
        if self._loaded is None or self._loaded[0] != key:
            folder, images_at = (
                self._workspace.datasets / key,
                data.path_of(configuration.dataset, self._workspace.base_of_data),
            )
            try:
                loaded = data.load(folder, images_at)
            except DataError:
                self.prepare_dataset(key, configuration, log)  # logs what was wrong
                loaded = data.load(folder, images_at)
            self._loaded = (key, loaded)
        return self._loaded[1]

    def shape(self, configuration: Configuration) -> DatasetShape | None:
        """The shape of a configuration's data set, if it is prepared or its source tells; else None."""
        from collabench.data.manifest import MANIFEST, Manifest

        path = self._workspace.datasets / dataset_key(configuration.dataset) / MANIFEST
        try:
            form = read_json(path, Manifest).form if path.exists() else None
        except ResultError:  # damaged, or of another version: it is prepared again before anything is trained
            form = None
        if form is None:
            return shape_of(configuration.dataset)
        return as_asked(configuration.dataset, form) if configuration.dataset.split == "per_seed" else form

    def tiny_last_batches(self) -> list[str]:
        """One line for each recipe of the plan and data set whose epochs end with a step on a tiny batch
        (:mod:`collabench.config.batch_sizes`)."""
        lines: dict[tuple[str, str], str] = {}
        for configuration in self._plan.configurations.values():
            recipe, names, form = configuration.recipe, configuration.names, self.shape(configuration)
            images = configuration.dataset.train_images if form is None else form.train_images
            if images is None or recipe.last_batch != "keep" or not METHODS[configuration.method.method].Method.trains:
                continue
            images -= held_out(images, recipe.validation_fraction)
            tiny = remaining_images(images, recipe.batch_size)
            if tiny > 1:  # a single image is left out
                lines[names["recipe"], names["dataset"]] = (
                    f"recipe {names['recipe']} on {names['dataset']}: every epoch ends with a step on {tiny} images, "
                    f"as large as one on {recipe.batch_size}; last_batch: spread or drop avoids it"
                )
        return list(lines.values())

    def noisy_tests(self) -> list[str]:
        """One line for each data set of the plan whose test labels are known to be noisy."""
        from collabench.report.titles import NOISY_TEST

        noisy = {c.names["dataset"] for c in self._plan.configurations.values() if c.dataset.test_labels == "noisy"}
        return [f"data set {name}: {NOISY_TEST}" for name in sorted(noisy)]

    def noise_files(self) -> dict[str, list[Run]]:
        """Noise key → one run for each static noise file that is needed, or may be as the study grows: drawn at once,
        the files depend on the configuration alone, never on results."""
        needed: dict[str, dict[int, Run]] = {}
        for run in self._plan.possible:
            noise = run.configuration.noise
            if noise.is_static:
                needed.setdefault(noise_key(run.configuration.dataset, noise), {}).setdefault(run.data_seed, run)
        return {key: list(runs.values()) for key, runs in needed.items()}

    def noise_file(self, run: Run) -> Path:
        """Path of the run's static noisy labels."""
        key = noise_key(run.configuration.dataset, run.configuration.noise)
        return self._workspace.noise / key / f"seed-{run.data_seed}.safetensors"

    def prepare_noise(self, log: Log = print, keys: Iterable[str] | None = None) -> None:
        """Draw the static noisy labels that are missing or damaged. The data sets must exist."""
        from collabench.core.errors import DataError
        from collabench.data import noise

        files = self.noise_files()
        for key in files if keys is None else keys:
            if key not in files:
                raise self._changed(f"the noise {key}")
            for run in files[key]:
                path = self.noise_file(run)
                if path.exists():
                    try:
                        noise.read_static(path, run.configuration.noise, run.data_seed)
                        continue
                    except DataError as error:
                        log(f"{error}; drawing it again")
                self._draw_noise(run, log)

    def static_noise(self, run: Run, log: Log = print) -> data.NoisyLabels | None:
        """The run's static noisy labels, drawn again if they are damaged; None if its noise is not static."""
        from collabench.core.errors import DataError
        from collabench.data import noise

        config = run.configuration.noise
        if not config.is_static:
            return None
        path, dataset = self.noise_file(run), self.dataset(run, log)
        try:
            found = noise.read_static(path, config, run.data_seed)
            noise.check_static(found, config, dataset.train_labels, dataset.classes, path)
            return found
        except DataError as error:
            log(f"{error}; drawing it again")
        self._draw_noise(run, log)
        return noise.read_static(path, config, run.data_seed)

    def _draw_noise(self, run: Run, log: Log) -> None:
        from collabench.data import noise

        config = run.configuration.noise
        drawn = self.drawn_noise(run, self._whole_dataset(run.configuration, log))
        chance = share_wrong_by_chance(drawn)
        spread = math.sqrt(chance * (1 - chance) / len(drawn.clean))
        # a wrong order gives about that share: below it as often as above it
        if config.kind == "file" and drawn.corruption >= chance - 3 * spread and config.path not in self._remarked:
            self._remarked.add(config.path)
            log(f"{config.path}: {100 * drawn.corruption:.1f} % of its labels are not the data set's; labels in a "
                f"wrong order would give about {100 * chance:.1f} %: are its images in the data set's order, "
                "and its classes numbered alike?")  # fmt: skip
        noise.write_static(self.noise_file(run), drawn, config, run.data_seed)

    def drawn_noise(self, run: Run, pool: data.Dataset) -> data.NoisyLabels:
        """The static noisy labels that the run's seed draws. pool: its prepared data set. Raises DataError."""
        import torch

        from collabench import data
        from collabench.core.errors import DataError
        from collabench.data import noise

        config, dataset, seed = run.configuration.noise, run.configuration.dataset, run.data_seed
        seen = data.split_for_seed(pool, dataset, seed)
        in_source = None
        if config.kind == "file":
            workspace = self._workspace
            in_source = data.position_in_source(dataset, pool, seed, workspace.downloads, workspace.base_of_data)
        pixels = None
        if config.kind == "instance":
            images = seen.train_images
            if not isinstance(images, torch.Tensor):
                raise DataError(f"{seen.title}: kind: instance reads the pixels of images that fit in memory as an "
                                "array; these are read from files: give the data set a smaller resize")  # fmt: skip
            pixels = noise.Seen(images, seen.mean, seen.std)
        try:
            return noise.draw(config, seen.train_labels, seen.classes, seed, in_source=in_source, seen=pixels)
        except DataError as error:
            if config.path is None:
                raise
            raise DataError(f"noise.{run.configuration.names['noise']}: {error}") from None

    def drop_damaged(self, log: Log = print) -> None:
        """Remove manifests and static noise files of the plan that are damaged or belong to damaged arrays.

        They are then made again.
        """
        from collabench import data
        from collabench.core.errors import DataError
        from collabench.data import noise

        def check(path: Path, read: Callable[[Path], object], source: Path) -> None:
            try:
                if path.exists():
                    read(source)
            except DataError as error:
                log(f"{error}; it is made again")
                path.unlink(missing_ok=True)

        for key in self.dataset_keys():
            folder = self._workspace.datasets / key
            if folder.exists():  # for the lock: another process may be preparing it
                with self._preparing(key, log):
                    check(folder / data.MANIFEST, data.load, folder)
        for runs in self.noise_files().values():
            for run in runs:
                read = partial(noise.read_static, config=run.configuration.noise, seed=run.data_seed)
                check(self.noise_file(run), read, self.noise_file(run))


def share_wrong_by_chance(drawn: data.NoisyLabels) -> float:
    """The share of wrong labels that is expected where the labels are in an order that has nothing to do with the
    images': one minus the sum over classes of the shares in both."""
    classes = len(drawn.transition)
    of_clean, of_noisy = (labels.bincount(minlength=classes) / len(labels) for labels in (drawn.clean, drawn.noisy))
    return 1 - float(of_clean @ of_noisy)


def link_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Make the files ``names`` of ``source`` available in ``target``, as hard links, or as copies if the file system
    has none."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            (target / name).unlink(missing_ok=True)
            os.link(source / name, target / name)
        except OSError:
            write_atomically(target / name, (source / name).read_bytes())

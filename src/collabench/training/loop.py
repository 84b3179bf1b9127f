"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collabench import data
from collabench.config.configuration import Run
from collabench.core import distributed
from collabench.core.errors import ConfigError, ResultError, RunFailed
from collabench.core.seeding import dropout_seed
from collabench.data import noise
from collabench.data.mixup import mix, mixing_shares
from collabench.methods import Batch
from collabench.models.convolution.portable import make_portable
from collabench.models.convolution.products import portable_products
from collabench.models.dropout import assign_generators
from collabench.storage.results import Measured
from collabench.training import checkpoint
from collabench.training.averaging import WeightAverage
from collabench.training.compilation import compile_in_place, compiled_sizes, compiling, options_of
from collabench.training.context import make_context, make_method
from collabench.training.device import (
    PeakMemory,
    check_execution,
    computing,
    describe,
    is_portable,
    prepare_process,
    type_of,
    versions,
    watch_determinism,
)
from collabench.training.evaluation import Evaluator
from collabench.training.history import Clock, History, Progress, ends_early
from collabench.training.optimizer import clip_gradients, make_optimizer
from collabench.training.result import Trained, make_result
from collabench.training.schedule import learning_rate

#: Seconds between checkpoints. Writing one must cost little beside the work that it saves.
CHECKPOINT_SECONDS = 60.0


def train_run(
    run: Run,
    dataset: data.Dataset,
    *,
    device: torch.device,
    static_noise: noise.NoisyLabels | None = None,
    teachers: Sequence[nn.Module] = (),
    checkpoint_path: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    report: Callable[[Progress], None] | None = None,
    after_epoch: Callable[[History], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Trained:
    """Train one run, or resume it from its checkpoint. Both give byte-identical results.

    Args:
        device: of this process. If the recipe asks for several processes, all of them call this function
            (:mod:`collabench.core.distributed`) and return the same weights and logits.
        static_noise: the run's noisy labels if its noise is static.
        teachers: deployed networks of ``run.requires()``, in that order.
        checkpoint_path: of the checkpoint, which the first process writes. None: no checkpoints.
        report: called about once a second and at the end of every epoch.
        after_epoch: called with the run's history after every epoch; it must not change it.
        log: receives lines for a person, for example about a damaged checkpoint.

    Raises:
        RunFailed: the loss is not finite.
        ConfigError: the recipe's precision or compilation does not suit this device, or it asks for another number
            of processes.
    """
    started = datetime.now(UTC)
    recipe = run.configuration.recipe
    if recipe.processes != distributed.world():
        raise ConfigError(f"the recipe asks for {recipe.processes} processes; there are {distributed.world()}")
    check_execution(recipe, device)
    prepare_process(device, compiles=bool(recipe.compile))
    memory = PeakMemory(device)
    portable = is_portable(recipe, device)
    with portable_products(portable), compiling(recipe), watch_determinism() as nondeterministic:
        trainer = _Trainer(run, dataset, device, static_noise, teachers)
        history = trainer.resume(checkpoint_path, log)
        nondeterministic += [name for name in history.nondeterministic if name not in nondeterministic]
        history.nondeterministic = nondeterministic  # what was found before an interruption still holds
        clock = Clock(checkpoint_seconds)
        path = checkpoint_path if distributed.rank() == 0 else None
        with nullcontext() if path is None else checkpoint.Writer(path) as writer:
            while trainer.method.trains and history.epoch < recipe.epochs and not ends_early(recipe, history):
                trainer.train_epoch(clock, writer, report)
                if after_epoch is not None:
                    after_epoch(history)
        if trainer.average is not None:
            trainer.average.use()
        if not distributed.are_equal(trainer.network.state_dict().values()):
            raise RunFailed("the processes ended with different weights")
        if not trainer.method.trains:
            trainer.epoch_labels(0)  # for the share of wrong labels, which a result states
        final = trainer.evaluator.final()
    result = make_result(run, dataset, history, final, trainer.train_images, trainer.parameters, static_noise)
    images = trainer.images_per_epoch * history.epoch
    measured = Measured(
        run_id=run.id,
        train_seconds=round(history.train_seconds, 3),
        evaluate_seconds=round(history.evaluate_seconds, 3),
        images_per_second=round(images / max(history.train_seconds, 1e-9), 1),
        peak_memory_bytes=memory.read(),
        device_type=type_of(device),
        device=describe(device),
        threads=torch.get_num_threads(),
        versions=versions(portable, {model.family for model in run.configuration.models}),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        resumed=history.resumed,
        nondeterministic_operations=tuple(sorted(nondeterministic)),
    )
    weights = {k: v.detach().cpu().contiguous() for k, v in final.deployed.state_dict().items()}
    return Trained(result, measured, final.logits, weights if trainer.method.trains else None)


class _Trainer:
    """One run's network, optimizer and data on the device."""

    def __init__(
        self,
        run: Run,
        dataset: data.Dataset,
        device: torch.device,
        static_noise: noise.NoisyLabels | None,
        teachers: Sequence[nn.Module],
    ) -> None:
        self.run, self.dataset, self.device = run, dataset, device
        configuration, self.recipe = run.configuration, run.configuration.recipe
        self.static_noise = static_noise
        form = dataset.form
        shape, classes = form.network_shape(self.recipe), form.classes
        for teacher in teachers:
            teacher.to(device).eval().requires_grad_(False)
        self.method = make_method(configuration, make_context(configuration, shape, classes, run.seed, teachers))
        self.network = self.method.build().to(device=device, memory_format=torch.channels_last)
        distributed.share_batch_statistics(self.network)
        if is_portable(self.recipe, device):
            for network in (self.network, *teachers):
                make_portable(network)
        self.parameters = list(self.network.parameters())
        self.generators = assign_generators(self.network, device)
        self.optimizer = make_optimizer(self.parameters, self.recipe)
        decay = self.recipe.ema_decay if self.method.trains else None
        self.average = None if decay is None else WeightAverage(self.network, decay)
        self.computing = partial(computing, self.recipe, device)
        self.history = History()

        fraction = self.recipe.validation_fraction
        self.train_index: Tensor | None = None
        self.validation_index: Tensor | None = None
        if fraction:
            self.train_index, self.validation_index = data.validation_split(
                dataset.train_labels, fraction, run.data_seed
            )
        if self.method.trains:
            self.batches = data.open_batches(
                dataset, self.recipe.augmentation, self.recipe.batch_size, run.seed, device, self.train_index,
                distributed.own_part(), self.recipe.last_batch,
            )  # fmt: skip
        if self.recipe.compile and self.method.trains:
            own = distributed.own_part()
            sizes = [rows.stop - rows.start for rows in map(own.rows, self.batches.sizes)]
            compile_in_place(self.network, compiled_sizes(sizes), **options_of(self.recipe))
        self.train_images = len(dataset.train_labels) if self.train_index is None else len(self.train_index)
        #: Number of images that are trained on in an epoch.
        self.images_per_epoch = sum(self.batches.sizes) if self.method.trains else 0
        self.evaluator = Evaluator(
            self.method, self.network, dataset, self.recipe, device, self.computing, self.validation_index
        )

    def state(self) -> dict[str, Any]:
        return {
            "run_id": self.run.id,
            "history": vars(self.history).copy(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {number: generator.get_state() for number, generator in self.generators.items()},
            "average": None if self.average is None else self.average.state(),
        }

    def resume(self, path: Path | None, log: Callable[[str], None] | None) -> History:
        """Go on from the checkpoint at ``path`` if there is one that is whole and of this run."""
        state = distributed.from_first(lambda: self._checkpoint(path, log))
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state(state["average"])
            for number, generator in self.generators.items():
                generator.set_state(state["generators"][number])
            self.history = History(**state["history"])
            self.history.resumed += 1
        return self.history

    def _checkpoint(self, path: Path | None, log: Callable[[str], None] | None) -> dict[str, Any] | None:
        if path is None or not path.exists():
            return None
        try:
            # Tensors go where the network is when they are loaded into it; a generator's state belongs on the CPU.
            state = checkpoint.load(path, torch.device("cpu"))
        except ResultError as error:
            if log:
                log(f"{error}; run {self.run.id} starts from its beginning")
            return None
        if state["run_id"] != self.run.id:
            if log:
                log(f"{path}: belongs to {state['run_id']}; run {self.run.id} starts from its beginning")
            return None
        return state

    def _update(self, loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None:
        """:class:`collabench.methods.Update`."""
        self.optimizer.zero_grad(set_to_none=True)
        if distributed.world() > 1:
            loss = loss * distributed.share()
        with torch.autocast(self.device.type, enabled=False) if self.recipe.precision != "float32" else nullcontext():
            loss.backward(inputs=None if parameters is None else list(parameters))
        distributed.sum_gradients(self.parameters)
        if self.recipe.clip_gradient_norm is not None:
            clip_gradients(self.parameters, self.recipe.clip_gradient_norm)
        self.optimizer.step()
        torch.clear_autocast_cache()  # it holds narrow copies of the weights as they were before this update

    def epoch_labels(self, epoch: int) -> Tensor:
        """Training labels (N,) of an epoch, on the CPU, over the whole training split (held-out images included)."""
        configuration = self.run.configuration
        if configuration.noise.is_static:
            assert self.static_noise is not None, "static noise is drawn by a stage of its own"
            labels, corruption = self.static_noise.noisy, self.static_noise.corruption
        elif configuration.noise.kind == "none":
            labels, corruption = self.dataset.train_labels, 0.0
        else:
            drawn = noise.draw(
                configuration.noise, self.dataset.train_labels, self.dataset.classes, self.run.data_seed, epoch
            )
            labels, corruption = drawn.noisy, drawn.corruption
        if len(self.history.corruption) == epoch:
            self.history.corruption.append(corruption)
        return labels

    def train_epoch(
        self, clock: Clock, writer: checkpoint.Writer | None, report: Callable[[Progress], None] | None
    ) -> None:
        """One epoch, or the rest of one."""
        history, begin = self.history, time.monotonic()
        epoch = history.epoch
        all_labels = self.epoch_labels(epoch)
        labels = (all_labels if self.train_index is None else all_labels[self.train_index]).to(self.device)
        shares = None
        if self.recipe.mixup_alpha is not None:
            shares = mixing_shares(self.recipe.mixup_alpha, self.run.seed, epoch, self.batches.steps)
        if history.step == 0:
            for number, generator in self.generators.items():
                generator.manual_seed(dropout_seed(self.run.seed, epoch, number))
            history.loss_sums = []
        names: list[str] = list(history.losses)
        sums = torch.tensor(history.loss_sums, dtype=torch.float64).to(self.device) if history.loss_sums else None
        self.network.train()
        for images, targets in self.batches.epoch(epoch, labels, history.step):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe, epoch, history.step, self.batches.steps)
            if shares is not None:
                images, targets = mix(images, targets, shares[history.step], len(self.dataset.classes))
            with self.computing(), distributed.batch_of(self.batches.sizes[history.step]):
                terms = self.method.step(self.network, Batch(images, targets, self.generators[0], epoch), self._update)
            names = list(terms)
            # Summed at every step, so that every process knows all that a checkpoint holds.
            values = distributed.summed(torch.stack([term.detach() for term in terms.values()]).double() * len(targets))
            sums = values if sums is None else sums + values
            if self.average is not None:
                self.average.update()
            history.step += 1
            if report and clock.report_due():
                report(self._progress(begin))
            if writer is not None and clock.checkpoint_due(writer):
                history.loss_sums = sums.tolist()
                history.losses = history.losses or {name: [] for name in names}
                history.train_seconds += time.monotonic() - begin
                begin = time.monotonic()
                writer.write(self.state())
        assert sums is not None, "an epoch has at least one batch"
        means = [value / self.images_per_epoch for value in sums.tolist()]  # the epoch's only synchronisation
        bad = [name for name, mean in zip(names, means, strict=True) if not math.isfinite(mean)]
        if bad:
            raise RunFailed(f"the loss {bad[0]!r} is not finite in epoch {epoch + 1} of {self.recipe.epochs}")
        for name, mean in zip(names, means, strict=True):
            history.losses.setdefault(name, []).append(mean)
        history.learning_rate.append(learning_rate(self.recipe, epoch, 0, self.batches.steps))
        history.train_seconds += time.monotonic() - begin
        with nullcontext() if self.average is None else self.average.in_use():
            self.evaluator.after_epoch(history, all_labels)
        history.epoch, history.step, history.loss_sums = epoch + 1, 0, []
        if report:
            report(self._progress(time.monotonic()))

    def _progress(self, begin: float) -> Progress:
        history = self.history
        spent = history.train_seconds + (time.monotonic() - begin)
        done = history.epoch + history.step / self.batches.steps
        per_epoch = (spent + history.evaluate_seconds) / max(done, 1e-9)
        evaluated = [error for error in history.test_error if error is not None]
        return Progress(
            epoch=history.epoch,
            epochs=self.recipe.epochs,
            error=evaluated[-1] if evaluated else None,
            images_per_second=done * self.images_per_epoch / max(spent, 1e-9),
            seconds_left=per_epoch * (self.recipe.epochs - done),
        )

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
from collabench.config.compatibility import input_shape_of
from collabench.config.configuration import Run
from collabench.core import distributed
from collabench.core.errors import ConfigError, ResultError, RunFailed
from collabench.core.seeding import dropout_seed
from collabench.data import noise
from collabench.methods import Batch
from collabench.models.convolution.portable import make_portable
from collabench.models.convolution.products import portable_products
from collabench.models.dropout import copy_generators
from collabench.storage.results import TOP5_CLASSES, Curves, Figures, Measured, NoiseRealised, Result
from collabench.training import checkpoint
from collabench.training.context import make_context, make_method
from collabench.training.device import (
    PeakMemory,
    check_execution,
    compilation,
    compile_in_place,
    computing,
    describe,
    prepare_process,
    versions,
    watch_determinism,
)
from collabench.training.evaluation import _as_float16, _Final, collect_logits, errors, figures, top5_error
from collabench.training.history import Progress, _Clock, _History, learning_rate
from collabench.training.optimizer import make_optimizer
from collabench.training.result import Trained

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
    tell: Callable[[str], None] | None = None,
) -> Trained:
    """Train one run, or finish it from its checkpoint; both give the same bytes.

    Args:
        device: the one of this process; as many processes as the recipe says call this at once, if it says more than one
            (:mod:`collabench.distributed`), and all return the same weights and logits.
        static_noise: the run's noisy labels if its noise is static and not ``none``.
        teachers: deployed networks of ``run.requires()``, in that order.
        checkpoint_path: where to keep checkpoints (none are written without it); of several processes, the first one's.
        report: called about once a second and at the end of every epoch.
        tell: receives lines that a person should read (a damaged checkpoint, say).

    Raises:
        RunFailed: the loss is not finite.
        ConfigError: the recipe's precision or compilation makes no sense on this device, or its number of
            processes isn't that of the processes that there are.
    """
    started = datetime.now(UTC)
    recipe = run.configuration.recipe
    if recipe.processes != distributed.world():
        raise ConfigError(f"the recipe asks for {recipe.processes} processes; there are {distributed.world()}")
    check_execution(recipe, device)
    prepare_process(device, compiles=bool(recipe.compile))
    memory = PeakMemory(device)
    portable = recipe.convolution == "tuned" and device.type == "cpu"
    with portable_products(portable), watch_determinism() as nondeterministic:
        trainer = _Trainer(run, dataset, device, static_noise, teachers)
        history = trainer.resume(checkpoint_path, tell)
        nondeterministic += [name for name in history.nondeterministic if name not in nondeterministic]
        history.nondeterministic = nondeterministic  # what was found before an interruption still holds
        checkpoint_path = checkpoint_path if distributed.rank() == 0 else None
        clock = _Clock(checkpoint_seconds)
        while trainer.method.trains and history.epoch < recipe.epochs:
            trainer.train_epoch(clock, checkpoint_path, report)
        if not distributed.are_equal(trainer.network.state_dict().values()):
            raise RunFailed("the processes ended with different weights")
        final = trainer.final_evaluation()
    result = trainer.result(final, deterministic=not nondeterministic)
    images = trainer.images_per_epoch * recipe.epochs if trainer.method.trains else 0
    measured = Measured(
        run_id=run.id,
        train_seconds=round(history.train_seconds, 3),
        evaluate_seconds=round(history.evaluate_seconds, 3),
        images_per_second=round(images / max(history.train_seconds, 1e-9), 1),
        peak_memory_bytes=memory.read(),
        device_type=device.type,
        device=describe(device),
        threads=torch.get_num_threads(),
        versions=versions(tuned=recipe.convolution == "tuned" and device.type == "cpu"),
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
        classes = len(dataset.classes)
        shape = input_shape_of(dataset.input_shape, self.recipe)
        for teacher in teachers:
            teacher.to(device).eval().requires_grad_(False)
        self.method = make_method(configuration, make_context(configuration, shape, classes, run.seed, teachers))
        self.network = self.method.build().to(device=device, memory_format=torch.channels_last)
        distributed.share_batch_statistics(self.network)
        if self.recipe.convolution == "tuned":  # on a GPU cuDNN chooses
            for network in (self.network, *teachers):
                make_portable(network)
        if self.recipe.compile:
            compile_in_place(self.network, **compilation(self.recipe))
        self.parameters = list(self.network.parameters())
        self.generators = copy_generators(self.network, device)
        self.optimizer = make_optimizer(self.parameters, self.recipe)
        self.computing = partial(computing, self.recipe, device)
        self.history = _History()
        self.last_logits: Tensor | None = None

        fraction = self.recipe.validation_fraction
        if fraction:
            self.train_index, self.validation_index = data.validation_split(
                dataset.train_labels, fraction, run.data_seed
            )
        else:
            self.train_index, self.validation_index = None, None
        if self.method.trains:
            self.batches = data.open_batches(
                dataset, self.recipe.augmentation, self.recipe.batch_size, run.seed, device, self.train_index,
                distributed.own_part(),
            )  # fmt: skip
        self.images_per_epoch = len(dataset.train_labels) if self.train_index is None else len(self.train_index)
        self.test_labels = dataset.test_labels.to(device)
        self.records_top5 = len(dataset.classes) >= TOP5_CLASSES

    # -------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        return {
            "run_id": self.run.id,
            "history": vars(self.history).copy(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {number: generator.get_state() for number, generator in self.generators.items()},
        }

    def resume(self, path: Path | None, tell: Callable[[str], None] | None) -> _History:
        """Go on from the checkpoint at ``path`` if there is one that is whole and of this run."""
        state = distributed.from_first(lambda: self._checkpoint(path, tell))
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            for number, generator in self.generators.items():
                generator.set_state(state["generators"][number])
            self.history = _History(**state["history"])
            self.history.resumed += 1
        return self.history

    def _checkpoint(self, path: Path | None, tell: Callable[[str], None] | None) -> dict[str, Any] | None:
        if path is None or not path.exists():
            return None
        try:
            # Tensors go where the network is when they are loaded into it; a generator's state belongs on the CPU.
            state = checkpoint.load(path, torch.device("cpu"))
        except ResultError as error:
            if tell:
                tell(f"{error}; run {self.run.id} starts from its beginning")
            return None
        if state["run_id"] != self.run.id:
            if tell:
                tell(f"{path}: belongs to {state['run_id']}; run {self.run.id} starts from its beginning")
            return None
        return state

    # ----------------------------------------------------------------------------------------------- training

    def _update(self, loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None:
        """:class:`collabench.methods.Update`."""
        self.optimizer.zero_grad(set_to_none=True)
        if distributed.world() > 1:
            loss = loss * distributed.share()
        with torch.autocast(self.device.type, enabled=False) if self.recipe.precision != "float32" else nullcontext():
            loss.backward(inputs=None if parameters is None else list(parameters))
        distributed.sum_gradients(self.parameters)
        self.optimizer.step()

    def _epoch_labels(self, epoch: int) -> Tensor:
        """Training labels (N,) of an epoch, on the CPU, over the whole training split (held-out images included)."""
        configuration = self.run.configuration
        if configuration.noise.kind == "none":
            labels, corruption = self.dataset.train_labels, 0.0
        elif configuration.noise.when == "static":
            assert self.static_noise is not None, "static noise is drawn by a stage of its own"
            labels, corruption = self.static_noise.noisy, self.static_noise.corruption
        else:
            drawn = noise.draw(
                configuration.noise, self.dataset.train_labels, self.dataset.classes, self.run.data_seed, epoch
            )
            labels, corruption = drawn.noisy, drawn.corruption
        if len(self.history.corruption) == epoch:
            self.history.corruption.append(corruption)
        return labels

    def train_epoch(
        self, clock: _Clock, checkpoint_path: Path | None, report: Callable[[Progress], None] | None
    ) -> None:
        """One epoch, or the rest of one."""
        history, begin = self.history, time.monotonic()
        epoch = history.epoch
        all_labels = self._epoch_labels(epoch)
        labels = (all_labels if self.train_index is None else all_labels[self.train_index]).to(self.device)
        rate = learning_rate(self.run.configuration, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if history.step == 0:
            for number, generator in self.generators.items():
                generator.manual_seed(dropout_seed(self.run.seed, epoch, number))
            history.loss_sums = []
        names: list[str] = list(history.losses)
        sums = torch.tensor(history.loss_sums, dtype=torch.float64).to(self.device) if history.loss_sums else None
        self.network.train()
        for images, targets in self.batches.epoch(epoch, labels, history.step):
            with self.computing(), distributed.batch_of(self.batches.sizes[history.step]):
                terms = self.method.step(self.network, Batch(images, targets, self.generators[0]), self._update)
            names = list(terms)
            # Summed at every step, so that every process knows all that a checkpoint holds.
            values = distributed.summed(torch.stack([term.detach() for term in terms.values()]).double() * len(targets))
            sums = values if sums is None else sums + values
            history.step += 1
            if report and clock.report_due():
                report(self._progress(begin))
            if checkpoint_path is not None and clock.checkpoint_due():
                history.loss_sums = sums.tolist()
                history.losses = history.losses or {name: [] for name in names}
                history.train_seconds += time.monotonic() - begin
                begin = time.monotonic()
                checkpoint.save(checkpoint_path, self.state())
                clock.last_checkpoint = time.monotonic()
        means = [value / self.images_per_epoch for value in sums.tolist()]  # the epoch's only synchronisation
        bad = [name for name, mean in zip(names, means, strict=True) if not math.isfinite(mean)]
        if bad:
            raise RunFailed(f"the loss {bad[0]!r} is not finite in epoch {epoch + 1} of {self.recipe.epochs}")
        for name, mean in zip(names, means, strict=True):
            history.losses.setdefault(name, []).append(mean)
        history.learning_rate.append(rate)
        history.train_seconds += time.monotonic() - begin
        self._evaluate_epoch(epoch, all_labels)
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

    # --------------------------------------------------------------------------------------------- evaluation

    def _logits(self, split: str, predict: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (heads, N, m) of the ``test`` or the ``validation`` split, ``predict`` giving those of a batch."""
        self.network.eval()
        index = self.validation_index if split == "validation" else None
        count = len(self.test_labels) if index is None else len(index)
        shared = 1 < distributed.world() <= count
        if shared:
            own = distributed.own_part().rows(count)
            index = torch.arange(own.start, own.stop) if index is None else index[own]
        batches = data.open_evaluation_batches(
            self.dataset, split, self.recipe.augmentation, self.recipe.evaluation_batch_size, self.device, index
        )
        logits = collect_logits(predict, batches, self.computing)
        return distributed.gathered(logits, count, dim=1) if shared else logits

    def _all_heads(self) -> Tensor:
        """Test logits (heads, N, m) of every head."""
        return self._logits("test", partial(self.method.predict, self.network))

    def _evaluate_epoch(self, epoch: int, labels: Tensor) -> None:
        """Append this epoch's test and validation errors, None where the recipe skips them: those of what would be deployed. The
        other heads count after the last epoch only."""
        history, begin = self.history, time.monotonic()
        last = epoch + 1 == self.recipe.epochs
        if not last and (epoch + 1) % self.recipe.evaluate_every:
            history.test_error.append(None)
            history.validation_error.append(None)
            history.test_top5_error.append(None)
            return
        deployed = self.method.deploy(self.network).eval()

        def predict(images: Tensor) -> Tensor:
            return deployed(images).unsqueeze(0)

        logits = self._all_heads() if last else self._logits("test", predict)
        self.last_logits = logits if last else None
        history.test_error.append(errors(logits, self.test_labels)[0].item())
        history.test_top5_error.append(top5_error(logits[0], self.test_labels) if self.records_top5 else None)
        if self.validation_index is None:
            history.validation_error.append(None)
        else:
            source = labels if self.recipe.validation_noisy else self.dataset.train_labels
            wanted = source[self.validation_index].to(self.device)
            error = errors(self._logits("validation", predict), wanted)[0].item()
            previous = [value for value in history.validation_error if value is not None]
            history.validation_error.append(error)
            if not previous or error < min(previous):
                history.selected = figures(logits[0], self.test_labels).model_dump()
                history.selected_epoch = epoch
        history.evaluate_seconds += time.monotonic() - begin

    def final_evaluation(self) -> _Final:
        """Logits and figures of every head after the last epoch, and the network that is deployed."""
        logits = self._all_heads() if self.last_logits is None else self.last_logits
        if not torch.isfinite(logits).all():
            raise RunFailed("the test logits are not finite after the last epoch")
        kept = {"deployed": _as_float16(logits[0])}
        averaged = None
        if len(logits) > 1:
            mean = logits.mean(dim=0)
            kept["averaged"] = _as_float16(mean)
            averaged = figures(mean, self.test_labels)
        if not self.method.trains:
            self._epoch_labels(0)
        return _Final(
            self.method.deploy(self.network), kept, [figures(head, self.test_labels) for head in logits], averaged
        )

    def result(self, final: _Final, *, deterministic: bool) -> Result:
        history, configuration = self.history, self.run.configuration
        evaluated = [error for error in history.test_error if error is not None]
        every_epoch = self.method.trains and len(evaluated) == self.recipe.epochs
        top5 = tuple(history.test_top5_error) if self.records_top5 else None
        return Result(
            run_id=self.run.id,
            configuration_id=configuration.id,
            seed=self.run.seed,
            identity=configuration.identity(),
            dataset_digest=self.dataset.digest,
            train_images=self.images_per_epoch,
            test_images=len(self.test_labels),
            parameters=sum(p.numel() for p in final.deployed.parameters()),
            training_parameters=sum(p.numel() for p in self.parameters),
            noise=NoiseRealised(
                kind=configuration.noise.kind,
                rate=configuration.noise.rate,
                corruption=sum(history.corruption) / len(history.corruption),
            ),
            last=final.heads[0],
            best_error=min(evaluated) if every_epoch else None,
            best_epoch=evaluated.index(min(evaluated)) if every_epoch else None,
            best_top5_error=min(top5) if every_epoch and top5 is not None else None,
            selected=None if history.selected is None else Figures(**history.selected),
            selected_epoch=history.selected_epoch,
            heads=tuple(final.heads),
            averaged_heads=final.averaged,
            curves=Curves(
                learning_rate=tuple(history.learning_rate),
                losses={name: tuple(values) for name, values in history.losses.items()},
                test_error=tuple(history.test_error),
                validation_error=tuple(history.validation_error) if self.validation_index is not None else (),
                test_top5_error=top5,
            ),
            deterministic=deterministic,
            files={},
        )

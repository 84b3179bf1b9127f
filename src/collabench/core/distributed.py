"""One training run shared by several processes, each of which holds a part of every batch.

A process started by torchrun has a rank. In any other process all functions here are the identity. The loss of the
whole batch is minimised: the mean of the processes' losses, weighted by their numbers of images. Each process computes
its own part of the gradients; the parts are summed before the update, whichever way the method computed them. Three
operations look at all images of a batch and therefore exchange data:

* batch normalisation: mean and variance of the whole batch, also in the backward pass (:func:`batch_norm_forward`,
  :func:`share_batch_statistics`);
* losses that compare images with each other (:func:`whole_batch`);
* random masks: every process draws the numbers of the whole batch and keeps those of its own images (:func:`rand`), so
  that all generators have the same state.

After every step all processes hold the same weights, running statistics and random states. torch's SyncBatchNorm and
DistributedDataParallel are not used: the first runs on GPUs only, the second expects one ordinary backward pass per
step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn.modules.batchnorm import _BatchNorm

from collabench.core.errors import ConfigError

T = TypeVar("T")
aten = torch.ops.aten

#: Timeout of a collective operation. It is long: other processes wait while the first one prepares a data set.
PATIENCE = timedelta(days=7)

_control: list[dist.ProcessGroup] = []
_gpus: list[dist.ProcessGroup] = []
_total: list[int] = []


def launched_world() -> int:
    """Number of processes that torchrun started, including this one; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def launched_first() -> bool:
    """Whether this process is the first one that torchrun started, or the only one."""
    return launched_world() == 1 or os.environ.get("RANK") == "0"


def join(**options: Any) -> None:
    """Join the process group over gloo, which needs no GPU, because processes agree on their GPUs by it.

    options: of ``torch.distributed.init_process_group``; by default what torchrun's environment says.
    """
    dist.init_process_group("gloo", **options)
    _control.append(dist.new_group(backend="gloo", timeout=PATIENCE))


def use_gpus(device: torch.device) -> None:
    """Exchange tensors of GPUs over NCCL from now on. All processes call it, each with the GPU that it has leased."""
    _gpus.append(dist.new_group(backend="nccl", device_id=device))


def leave() -> None:
    """Leave the process group. This process continues alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _control.clear()
    _gpus.clear()


def rank() -> int:
    """This process's number, counted from 0."""
    return dist.get_rank() if _control else 0


def world() -> int:
    """Number of processes that share a run."""
    return dist.get_world_size() if _control else 1


def from_first(make: Callable[[], T]) -> T:
    """The value of ``make()`` in process 0, sent to every process. It must consist of plain data and CPU tensors."""
    if world() == 1:
        return make()
    made: list[Any] = [make() if rank() == 0 else None]
    dist.broadcast_object_list(made, src=0, group=_control[0], device=torch.device("cpu"))
    received: T = made[0]
    return received


def wait_for_all() -> None:
    """Return once every process has called this function."""
    if world() > 1:
        dist.barrier(group=_control[0])


def _group_of(tensor: Tensor) -> dist.ProcessGroup | None:
    """The group that exchanges this tensor; None is the group of all, over gloo."""
    return _gpus[0] if _gpus and tensor.is_cuda else None


def summed(tensor: Tensor) -> Tensor:
    """The sum over the processes, without a gradient. In several processes ``tensor`` is changed in place."""
    if world() > 1:
        dist.all_reduce(tensor, group=_group_of(tensor))
    return tensor


# ------------------------------------------------------------------------------------------------ parts of a batch


@dataclass(frozen=True)
class Part:
    """The rows of a batch that process ``rank`` of ``world`` holds. They are consecutive. The parts differ by at most
    one row."""

    rank: int = 0
    world: int = 1

    def rows(self, total: int) -> slice:
        """This part of ``total`` rows."""
        return slice(total * self.rank // self.world, total * (self.rank + 1) // self.world)


#: All rows, in one process.
WHOLE = Part()


def own_part() -> Part:
    """This process's part."""
    return Part(rank(), world())


@contextmanager
def batch_of(total: int) -> Iterator[None]:
    """Within the block a batch of ``total`` images is trained on, of which this process holds its part."""
    _total.append(total)
    try:
        yield
    finally:
        _total.pop()


def _whole() -> tuple[int, slice]:
    if not _total:
        raise RuntimeError("several processes train, and no batch is shared: use batch_of")
    return _total[-1], own_part().rows(_total[-1])


def share() -> float:
    """This process's share of the batch's images, from 0 to 1: the weight of its loss."""
    if world() == 1:
        return 1.0
    total, part = _whole()
    return (part.stop - part.start) / total


def whole_batch(x: Tensor) -> Tensor:
    """All processes' rows (B, …) from this process's rows (b, …). Gradients are sent back to the process that owns the
    rows."""
    return x if world() == 1 else _WholeBatch.apply(x)


class _WholeBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total, ctx.part = _whole()
        return gathered(x, total)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every process sees all rows, and its loss counts by its share: a row's gradient is the sum over the processes.
        return summed(gradient.clone(memory_format=torch.contiguous_format))[ctx.part]


def gathered(x: Tensor, total: int, dim: int = 0) -> Tensor:
    """All ``total`` rows along ``dim``, of which every process holds its part ``x``. Has no gradient."""
    if world() == 1:
        return x
    shape = [*x.shape]
    shape[dim] = total
    part = own_part().rows(total)
    whole = x.new_zeros(shape)
    whole.narrow(dim, part.start, part.stop - part.start).copy_(x.detach())
    return summed(whole)


def rand(shape: Sequence[int], generator: torch.Generator | None, device: torch.device, dim: int = 0) -> Tensor:
    """``torch.rand`` of this shape on the device, copied if the generator is elsewhere. ``dim`` counts the images."""
    place = device if generator is None else generator.device
    if world() == 1:
        return torch.rand(shape, generator=generator, device=place).to(device)
    total, part = _whole()
    if shape[dim] != part.stop - part.start:
        raise RuntimeError(f"{shape[dim]} rows of random numbers for {part.stop - part.start} images")
    whole = [*shape]
    whole[dim] = total
    return torch.rand(whole, generator=generator, device=place).to(device).narrow(dim, part.start, shape[dim])


# ------------------------------------------------------------------------------------------------------- gradients


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum every parameter's gradient over the processes. If it has none, no process must have one."""
    if world() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat = summed(_flatten_dense_tensors(gradients))
        for gradient, sum_ in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
            gradient.copy_(sum_)


def are_equal(tensors: Iterable[Tensor]) -> bool:
    """Whether every process holds the same tensors, bit for bit."""
    if world() == 1:
        return True
    for tensor in tensors:
        own = tensor.detach().contiguous().view(-1)
        first = own.clone()
        dist.broadcast(first, src=0, group=_group_of(first))
        different = (own.view(torch.uint8) != first.view(torch.uint8)).sum()
        if summed(different).item():
            return False
    return True


# -------------------------------------------------------------------------------------------- batch normalisation

#: Stands where torch returns the number of the kernel that normalised: the statistics are those of several processes.
_SHARED = -1


def batch_norm_forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """``torch._batch_norm_impl_index`` with the statistics of the whole batch.

    Returns the output, the mean, 1 / deviation, and two values for :func:`batch_norm_backward`.
    """
    if world() == 1 or not training:
        return torch._batch_norm_impl_index(x, scale, shift, running_mean, running_var, training, momentum, eps, cudnn)
    wide = torch.promote_types(x.dtype, torch.float32)
    dims = [d for d in range(x.dim()) if d != 1]
    variance, mean = torch.var_mean(x.to(wide), dims, correction=0)
    # One row per process: images times pixels, mean, variance. They are combined by the formula of Chan, Golub and
    # LeVeque, which avoids cancellation.
    channels = x.shape[1]
    rows = x.new_zeros(world(), 2 * channels + 1, dtype=wide)
    own = rows[rank()]
    own[0], own[1 : channels + 1], own[channels + 1 :] = x.numel() // channels, mean, variance
    summed(rows)
    counts, means, variances = rows[:, :1], rows[:, 1 : channels + 1], rows[:, channels + 1 :]
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    variance = (counts * (variances + (means - mean).square())).sum(dim=0) / count
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    output = nn.functional.batch_norm(x, mean, variance, scale, shift, False, 0.0, eps)
    return output, mean, torch.rsqrt(variance + eps), count, _SHARED


def batch_norm_backward(
    kind: int,
    x: Tensor,
    gradient: Tensor,
    scale: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    deviation: Tensor,
    training: bool,
    eps: float,
    wanted: list[bool],
    reserve: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """``aten._batch_norm_impl_index_backward`` for :func:`batch_norm_forward`.

    Returns the gradients of input, scale and shift. Those of scale and shift are this process's part, like every
    parameter's gradient before :func:`sum_gradients`.
    """
    if kind != _SHARED:
        return aten._batch_norm_impl_index_backward(
            kind, x, gradient, scale, running_mean, running_var, mean, deviation, training, eps, wanted, reserve
        )
    variance = deviation.square().reciprocal() - eps
    x_gradient, scale_gradient, shift_gradient = aten.native_batch_norm_backward(
        gradient, x, scale, mean, variance, None, None, False, eps, [True, True, True]
    )
    if wanted[0]:
        sums = summed(torch.stack([shift_gradient, scale_gradient])) / reserve
        factor = deviation if scale is None else deviation * scale
        form = [1, -1] + [1] * (x.dim() - 2)
        normalised = (x - mean.view(form)).mul_(deviation.view(form))
        x_gradient = x_gradient - factor.view(form) * (sums[0].view(form) + normalised * sums[1].view(form))
    return (x_gradient.to(x.dtype) if wanted[0] else None), scale_gradient, shift_gradient


class _BatchNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        output, mean, deviation, count, ctx.kind = batch_norm_forward(
            x, scale, shift, running_mean, running_var, training, momentum, eps, False
        )
        ctx.eps = eps
        ctx.save_for_backward(x, scale, mean, deviation, count)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, deviation, count = ctx.saved_tensors
        found = batch_norm_backward(
            ctx.kind, x, gradient, scale, None, None, mean, deviation, True, ctx.eps,
            [ctx.needs_input_grad[0], True, True], count,
        )  # fmt: skip
        pairs = zip(found, ctx.needs_input_grad[:3], strict=True)
        return *(value if needed else None for value, needed in pairs), None, None, None, None, None


class _SharedBatchNorm(_BatchNorm):
    """Batch normalisation that uses the statistics of the whole batch in training."""

    def forward(self, x: Tensor) -> Tensor:
        return (self._uncompiled if torch.compiler.is_compiling() else self._forward)(x)

    def _forward(self, x: Tensor) -> Tensor:
        training = self.training or self.running_mean is None
        if not training or world() == 1:
            return super().forward(x)
        momentum = 0.0 if self.momentum is None else self.momentum
        tracked = self.training and self.track_running_stats
        if tracked and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average over all batches
                momentum = 1.0 / self.num_batches_tracked.item()
        running = (self.running_mean, self.running_var) if tracked else (None, None)
        return _BatchNormFunction.apply(x, self.weight, self.bias, *running, True, momentum, self.eps)

    _uncompiled = _disable_dynamo(_forward)  # its first call imports the compiler


class _SharedBatchNorm1d(_SharedBatchNorm, nn.BatchNorm1d):
    pass


class _SharedBatchNorm2d(_SharedBatchNorm, nn.BatchNorm2d):
    pass


_SHARED_FORMS = {nn.BatchNorm1d: _SharedBatchNorm1d, nn.BatchNorm2d: _SharedBatchNorm2d}


def share_batch_statistics(network: nn.Module) -> None:
    """Let the network's batch normalisation use the statistics of the whole batch; does nothing in a single process.

    The modules stay the same objects, with the same names and parameters. Raises ConfigError for a kind of
    normalisation that is not supported.
    """
    if world() == 1:
        return
    for name, module in network.named_modules():
        if type(module) in _SHARED_FORMS:
            module.__class__ = _SHARED_FORMS[type(module)]
        elif isinstance(module, _BatchNorm) and not isinstance(module, _SharedBatchNorm):
            raise ConfigError(
                f"{name}: {type(module).__name__} cannot be trained in several processes; use BatchNorm2d or "
                "processes: 1"
            )

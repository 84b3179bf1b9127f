"""Weights from a file: those that a network begins its training with, or those of a finished teacher."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator

from collabench.core.errors import ConfigError
from collabench.core.record import NO_REPEATS, Record
from collabench.core.regular import read_file

if TYPE_CHECKING:
    from torch import Tensor, nn


class PretrainedWeights(Record):
    """The weights that training begins with.

    ``path``: a safetensors file, or one that ``torch.save`` wrote and that holds tensors alone (by themselves or under
    ``state_dict``). A path that is not absolute begins at the folder of ``params.yaml``.
    ``sha256``: the file's SHA-256, which stands for it in the run's identity.
    ``fresh``: modules that keep their initial weights, such as the classifier of another data set.
    """

    path: str = Field(min_length=1)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    fresh: Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=400)], ...], NO_REPEATS] = ()

    @field_validator("fresh")
    @classmethod
    def _in_order(cls, fresh: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(fresh))  # their order changes nothing, so that it must not change an id

    def with_absolute_path(self, folder: Path) -> Self:
        """These settings with a relative path resolved against ``folder``, the folder of ``params.yaml``."""
        return self.model_copy(update={"path": str(folder / self.path)})

    def identity(self) -> dict[str, Any]:
        """The fields that can change numbers: all but the path, for which the checksum stands."""
        return self.identity_fields(exclude=("path",))


def read_weights(path: Path, sha256: str, key: str = "weights.path", checksum: str = "weights.sha256") -> dict[
    str, Tensor
]:  # fmt: skip
    """The tensors of a file, without executing anything that it holds.

    key, checksum: of ``params.yaml``, for messages. Raises ConfigError (one line) if the file is missing, has another
    SHA-256, or does not hold tensors by name.
    """
    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    try:
        content = read_file(path)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: cannot be read ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigError(f"{key}: {path}: its SHA-256 is {found}, {checksum} says {sha256}")
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        problem = " ".join(str(error).split())
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError):
        raise ConfigError(f"{key}: {path}: not a safetensors file ({problem}), nor one that torch.save wrote of "
                          "tensors alone") from None  # fmt: skip
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"{key}: {path}: does not hold tensors by name, nor under 'state_dict'")
    return state


def misfits(network: nn.Module, weights: Mapping[str, Tensor], fresh: Iterable[str] = ()) -> list[str]:
    """What differs between the names and shapes of a network and of a file's tensors; empty if they fit.

    fresh: modules of the network that the file need not have.
    """
    left = tuple(f"{module}." for module in fresh)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items() if not key.startswith(left)}
    given = {key: tuple(value.shape) for key, value in weights.items() if not key.startswith(left)}
    return [
        *(f"{key} is missing" for key in expected if key not in given and not key.endswith("num_batches_tracked")),
        *(f"{key} is not of this model" for key in given if key not in expected),
        *(f"{key} is {given[key]} and should be {shape}" for key, shape in expected.items()
          if key in given and given[key] != shape),
    ]  # fmt: skip


def load_pretrained(network: nn.Module, settings: PretrainedWeights) -> None:
    """Give a network the weights of a file, in place. On meta or fake tensors, which hold no numbers, names and shapes
    are only checked.

    Raises ConfigError (one line) as :func:`read_weights`, and if names or shapes differ.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    weights = read_weights(Path(settings.path), settings.sha256)
    check_pretrained(network, settings, weights)
    state = network.state_dict()
    if any(value.is_meta or isinstance(value, FakeTensor) for value in state.values()):
        return
    left = tuple(f"{module}." for module in settings.fresh)
    with torch.no_grad():
        for key, value in weights.items():
            if not key.startswith(left):
                state[key].copy_(value)


def check_pretrained(network: nn.Module, settings: PretrainedWeights, weights: Mapping[str, Tensor]) -> None:
    """Raise ConfigError (one line) if a file's tensors are not those of the network, or if what ``fresh`` names is no
    module or changes nothing."""
    modules = dict(network.named_modules())
    for module in settings.fresh:
        if module not in modules:
            known = ", ".join(name for name, _ in network.named_children())
            raise ConfigError(f"weights.fresh: the model has no module {module!r}; its modules: {known}")
        if not modules[module].state_dict():
            raise ConfigError(f"weights.fresh: the module {module!r} has no weights, so that naming it changes nothing")
        if outer := next((other for other in settings.fresh if module.startswith(f"{other}.")), None):
            raise ConfigError(f"weights.fresh: the module {module!r} is within {outer!r}, which is named too")
    problems = misfits(network, weights, settings.fresh)
    if problems:
        shown, more = problems[:3], len(problems) - 3
        raise ConfigError(f"weights.path: {settings.path}: not the weights of this model: {'; '.join(shown)}"
                          + (f" (and {more} more)" if more > 0 else "") + "; weights.fresh can name modules that keep "
                                                                          "their initial weights")  # fmt: skip

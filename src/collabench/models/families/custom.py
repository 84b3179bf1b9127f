"""A user's own model: any importable callable that returns a network.

::

    my-network: {family: custom, import: "my_package.networks:make", arguments: {width: 32},
                 stages: {stem: [conv1, bn1], body: [layers], pool: [pool, flatten], classifier: [fc]}}

``make(input_shape=(C, H, W), classes=m, **arguments)`` returns a ``torch.nn.Module`` that maps images (B, C, H, W) to
logits (B, m), with weights drawn from torch's global generator (which is seeded for the call and restored after it).
Its dropout layers are made to draw from the run's own stream (:func:`collabench.models.dropout.seed_dropout`).
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone
from collabench.models.chain import ChainSettings, Stages, chain, one_line
from collabench.models.dropout import seed_dropout

Plain = str | int | float | bool | None


class Settings(ChainSettings):
    """
    import: ``package.module:callable``. The package must be installed or on PYTHONPATH.
    arguments: further keyword arguments of the callable.
    stages: see :mod:`collabench.models.chain`.
    revision: part of a run's identity. Raise it when the model's code changes, which the identity does not cover.
    """

    draws_dropout: ClassVar[bool] = True
    family: Literal["custom"]
    import_: str = Field(alias="import", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    arguments: dict[str, Plain | list[Plain]] = Field(default_factory=dict)
    stages: Stages
    revision: int = Field(default=1, ge=1)


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the user's network. Raises ConfigError if the callable cannot be imported or called, or returns no such
    model.

    The model is made on the CPU, with numbers, even if only names and shapes are needed, so that a plan rejects what
    could not be trained.
    """
    name = settings.import_
    make = _imported(name)
    with torch.device("cpu"):
        try:
            model = make(input_shape=input_shape, classes=classes, **settings.arguments)
        except ConfigError as error:  # the model's own message about an input size
            raise ConfigError(f"{name}: {error}") from None
        except Exception as error:  # a user's function can raise anything
            raise ConfigError(f"{name} cannot make a model for {classes} classes and images of shape {input_shape} "
                              f"({one_line(error)})") from error  # fmt: skip
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{name} gives a {type(model).__name__}; it must return a torch.nn.Module")
        backbone = chain(settings, name, model, settings.stages, input_shape, classes)
        seed_dropout(backbone, name, input_shape, (settings, input_shape, classes))
    return backbone.to(torch.get_default_device())


def _imported(name: str) -> Any:
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise ConfigError(f"{name}: there is no module {error.name!r}; install its package or add its folder to "
                              "PYTHONPATH") from None  # fmt: skip
        raise ConfigError(f"{name}: the module {module_name!r} cannot be imported ({one_line(error)})") from error
    except Exception as error:  # a user's module can raise anything
        raise ConfigError(f"{name}: the module {module_name!r} cannot be imported ({one_line(error)})") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name}: {module_name!r} has no {path!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{name}: {path!r} is a {type(found).__name__}, not something to call")
    return found

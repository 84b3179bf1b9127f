"""A network of this project as Python code that needs torch alone.

torch.fx records which layers of torch, and which operations, the network applies to images in evaluation. The code
makes the same layers under the same names, so that the weights load as they are, and applies the same operations.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn


class NotPlain(Exception):
    """A network that cannot be written as code for torch alone."""


#: Functions other than torch's that a network calls, such as ``math.sqrt``.
_WRAPPED = re.compile(r'^torch\.fx\._symbolic_trace\.wrap\("(\w+)"\)$', re.MULTILINE)

_HEAD = '''\
"""The network of {title}, in plain torch: written by collabench export. MODEL_CARD.md says how it is used."""

{imports}import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        for path, part in (
{parts}
        ):
            *outer, name = path.split(".")
            place = self
            for inner in outer:
                if inner not in place._modules:
                    place._modules[inner] = nn.Module()
                place = place._modules[inner]
            if isinstance(part, nn.Parameter):
                place.register_parameter(name, part)
            elif isinstance(part, torch.Tensor):
                place.register_buffer(name, part)
            else:
                place._modules[name] = part

{forward}'''


def plain_code(title: str, network: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """Code of a class ``Network`` that computes what ``network`` computes in evaluation, bit for bit.

    title: of the run, for the head of the code. input_shape: (C, H, W). Raises NotPlain if the code does not do so, or
    if the network cannot be recorded.
    """
    graph = _record(network)
    called = dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module")
    modules = dict(network.named_modules(remove_duplicate=False))  # a name can have dots: a chain's modules are paths
    lines = [f'            ("{path}", nn.{modules[path]!r}),' for path in called]
    parameters = dict(network.named_parameters())
    held = {name for path in called for name in _below(modules[path], path)}
    lines += [f'            ("{name}", {_empty(value, name in parameters)}),'
              for name, value in network.state_dict().items() if name not in held]  # fmt: skip
    recorded = graph.python_code("self")
    further = {name: recorded.globals[name] for name in _WRAPPED.findall(recorded.src)}
    imports = "".join(f"from {value.__module__} import {value.__name__} as {name}\n" for name, value in further.items())
    body = recorded.src.partition("def forward")[2].partition("\n")[2]
    body = re.sub(r"torch\._C\._nn\.", "torch.nn.functional.", body)
    forward = "    def forward(self, images):\n" + "".join(f"    {line}\n" for line in body.rstrip().splitlines())
    named = " ".join(title.split()).replace("\\", " ").replace('"', "'")
    code = _HEAD.format(title=named, imports=imports, parts="\n".join(lines), forward=forward)
    _check(code, network, input_shape)
    return code


def _below(module: nn.Module, path: str) -> list[str]:
    return [f"{path}.{name}" for name in module.state_dict()]


def _empty(value: Tensor, is_parameter: bool) -> str:
    """Code of a tensor of that shape, for weights and statistics that the network holds outside of torch's layers."""
    made = f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    return f"nn.Parameter({made})" if is_parameter else made


def _record(network: nn.Module) -> torch.fx.Graph:
    try:
        return torch.fx.Tracer().trace(network)
    except Exception as error:  # a user's module can raise anything
        raise NotPlain(_first_line(error)) from None


def _check(code: str, network: nn.Module, input_shape: tuple[int, int, int]) -> None:
    images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            equal = torch.equal(_logits(code, network, images), network(images))
    except Exception as error:
        raise NotPlain(_first_line(error)) from None
    if not equal:
        raise NotPlain("the code computes something else")


def _logits(code: str, network: nn.Module, images: Tensor) -> Tensor:
    names: dict[str, Any] = {}
    exec(compile(code, "network.py", "exec"), names)
    plain: nn.Module = names["Network"]()
    plain.load_state_dict(network.state_dict())
    logits: Tensor = plain.eval()(images)
    return logits


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"

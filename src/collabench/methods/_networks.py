"""Settings of methods that train several whole networks together."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from collabench.methods import contract
from collabench.models import Backbone


class NetworksSettings(contract.MethodSettings):
    """Network 0 is the run's own model. It starts with the weights of individual training, and it is deployed.

    ``networks``: the number of networks of the run's model; they have independent initial weights. ``peers``: instead,
    the models of ``params.yaml`` that are trained together with network 0, one network each. A model may be named
    twice.
    """

    networks: int = Field(default=2, ge=2, le=16)
    peers: tuple[str, ...] = Field(default=(), max_length=15)

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        default = type(self).model_fields["networks"].default
        if self.peers and self.networks not in (default, 1 + len(self.peers)):
            raise ValueError(f"{len(self.peers)} peers make {1 + len(self.peers)} networks: remove networks")
        return self

    @property
    def count(self) -> int:
        """Number of networks."""
        return 1 + len(self.peers) if self.peers else self.networks

    def references(self) -> tuple[tuple[str, str, str], ...]:
        return tuple(("peers", "models", peer) for peer in self.peers)

    def passes(self) -> tuple[str | None, ...]:
        return (None, *self.peers) if self.peers else (None,) * self.networks

    def identity(self) -> dict[str, Any]:
        # The run's identity lists every named model once. This pattern adds which network has which of them.
        models = list(dict.fromkeys(self.peers))
        pattern = [models.index(peer) for peer in self.peers]
        return self.identity_fields(exclude=("networks", "peers")) | {"networks": self.count, "peers": pattern}

    def make(self, context: contract.Context) -> list[Backbone]:
        """The networks, in order, with independent initial weights."""
        if not self.peers:
            return [context.make_backbone(copy) for copy in range(self.networks)]
        others = [context.make_backbone(copy, model=peer) for copy, peer in enumerate(self.peers, start=1)]
        return [context.make_backbone(0), *others]

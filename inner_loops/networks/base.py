"""What an agent asks of a network: heads by name, of sizes that its update rule declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jax import Array

from metalab.protocols import PyTree

__all__ = ["AgentNetwork"]


@runtime_checkable
class AgentNetwork(Protocol):
    """A network with one output per head."""

    def init(self, key: Array, heads: Mapping[str, int], environment: object) -> PyTree:
        """Parameters for the environment's observations and the heads' sizes."""
        ...

    def apply(self, params: PyTree, obs: Array, heads: Mapping[str, int]) -> dict[str, Array]:
        """Head name to ``[size]`` outputs for one observation."""
        ...

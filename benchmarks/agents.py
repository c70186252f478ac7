"""The agents that benchmarks train: hand-written actor-critics, one point of a sweep each.

``network`` is the usual small case: CartPole-v1, networks of two layers, eight environments and rollouts of
five steps. ``table`` has no network and a world of a few states: what is left is XLA's cost per operation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["AGENTS", "Case"]

AGENTS = ("network", "table")
_ENVS, _ROLLOUT = 8, 5
_LIFETIME = 1_000_000  # inner updates: nobody dies while it is measured


@dataclasses.dataclass(frozen=True)
class Case:
    """A sweep over learning rates.

    Attributes:
        agent: one of ``AGENTS``.
        points: H, learning rates.
        outer_steps: of every point.
        updates: K, inner updates of one outer step, which ends with one rollout that is only scored.
        chunk: outer steps between two visits of the host, where something runs in chunks.
    """

    agent: str = "network"
    points: int = 32
    outer_steps: int = 100
    updates: int = 50
    chunk: int = 20

    @property
    def rates(self) -> list[float]:
        """Evenly spaced on a log scale; Adam's in the thousandths, those of a table in the hundreds."""
        low, high = (1e-4, 1e-2) if self.agent == "network" else (1.0, 100.0)
        last = max(1, self.points - 1)
        return [float(f"{low * (high / low) ** (i / last):.6g}") for i in range(self.points)]

    @property
    def environment_steps(self) -> int:
        """Of one point, the rollouts that are only scored among them."""
        return self.outer_steps * (self.updates + 1) * _ENVS * _ROLLOUT

    def described(self) -> str:
        """The agent in words."""
        where = "MLPs of 64-64 on CartPole-v1" if self.agent == "network" else "tables on delayed chains"
        return f"A2C, {where}, {_ENVS} environments, rollouts of {_ROLLOUT}"

    def outer_loop(self, rate: float) -> Any:
        """The outer loop of one point, put together by hand."""
        from inner_loops.actor_critic import ActorCritic
        from inner_loops.critics import NetworkCritic
        from inner_loops.networks.mlp import MlpNetwork
        from inner_loops.tasks.delayed_chains import DelayedChains
        from inner_loops.tasks.gymnax_tasks import GymnaxTasks
        from inner_loops.update_rules.a2c import A2C
        from metalab.optimizers import Adam, Sgd
        from outer_loops.fixed import Fixed

        if self.agent == "network":
            tasks = GymnaxTasks(lifetime=_LIFETIME)
            parts: dict[str, Any] = {"network": MlpNetwork(), "critic": NetworkCritic()}
            parts |= {"optimizer": Adam(learning_rate=rate)}
        else:
            tasks = DelayedChains(lifetime=_LIFETIME)
            parts = {"optimizer": Sgd(learning_rate=rate)}
        inner = ActorCritic(
            rule=A2C(entropy=0.01),
            environment=tasks.environment,
            num_envs=_ENVS,
            rollout_length=_ROLLOUT,
            **parts,
        )
        return Fixed(inner=inner, tasks=tasks, truncation=self.updates, num_slots=1, stagger=False)

    def sweep_file(self) -> dict[str, Any]:
        """The same as a sweep file has it."""
        inner: dict[str, Any] = {"kind": "actor_critic", "rule": {"kind": "a2c", "entropy": 0.01}}
        inner |= {"num_envs": _ENVS, "rollout_length": _ROLLOUT}
        if self.agent == "network":
            inner |= {"network": {"kind": "mlp"}, "critic": {"kind": "network"}}
            inner |= {"optimizer": {"kind": "adam"}}
            tasks = {"kind": "gymnax_tasks", "name": "CartPole-v1", "lifetime": _LIFETIME}
        else:
            inner |= {"optimizer": {"kind": "sgd"}}
            tasks = {"kind": "delayed_chains", "lifetime": _LIFETIME}
        outer = {"kind": "fixed", "truncation": self.updates, "num_slots": 1, "stagger": False}
        rates = ", ".join(map(repr, self.rates))
        return {
            "name": f"packing-{self.agent}",
            "inner": inner,
            "tasks": tasks,
            "outer": outer,
            "budget": {"outer_steps": self.outer_steps, "chunk": self.chunk},
            "search": {"inner.optimizer.learning_rate": f"choice({rates})"},
            "study": {"objective": "train/score"},
        }

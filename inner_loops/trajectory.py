"""The record of a rollout that rules and critics read."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array

__all__ = ["Trajectory"]


class Trajectory(NamedTuple):
    """``T`` steps of ``B`` environments (of one, where a function takes one sequence).

    Attributes:
        obs: [T + 1, B, ...] what the agent saw; the last entry was not acted on.
        action: [T, B] int32.
        reward: [T, B] what the agent is paid.
        score: [T, B] what counts: the reward, less any noise that the world adds to it.
        terminated: [T, B] bool, the episode ended by its own rules.
        truncated: [T, B] bool, the time limit struck.
        next_obs: [T, B, ...] the observation reached, before any reset.
        action_mask: [A] bool, the actions of this lifetime.
    """

    obs: Array
    action: Array
    reward: Array
    score: Array
    terminated: Array
    truncated: Array
    next_obs: Array
    action_mask: Array

    @property
    def done(self) -> Array:
        """[T, B] bool: the next observation belongs to another episode."""
        return self.terminated | self.truncated

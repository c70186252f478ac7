"""An outer loop and a learner that name a recording."""

from __future__ import annotations

from inner_loops.actor_critic import ActorCritic
from metalab.components import component, static
from outer_loops.fixed import Fixed


@component
class Reader(Fixed):
    path: str = static("", doc="a recording")


@component
class Named(ActorCritic):
    path: str = static("", doc="a recording")

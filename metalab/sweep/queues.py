"""Queues: the points that have been asked of the study and wait, each with the program that it belongs to."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections import deque
from collections.abc import Hashable, Sequence

import jax

from metalab.errors import MetalabError, cause_of
from metalab.spec import Point
from metalab.sweep.context import Context
from metalab.sweep.recorder import Recorder
from metalab.sweep.shrink import step_cost
from metalab.sweep.study import Proposal, Record

__all__ = ["Program", "Queues", "Standing"]


class Standing:
    """How a sweep stands: counted as points end, so that nobody has to look at all of them again.

    Attributes:
        ended: points that run no more.
        best: best objective of a finished point; None: there is none yet, or there are several objectives.
    """

    def __init__(self, records: Sequence[Record], directions: Sequence[str]) -> None:
        self._directions = directions
        self.ended = 0
        self.best: float | None = None
        for record in records:
            if record.status != "running":
                self.note(record.objective if record.status == "finished" else None)

    def note(self, objective: Sequence[float] | None) -> None:
        """A point has ended; ``objective`` if it has finished and has one."""
        self.ended += 1
        if objective is None or len(self._directions) > 1:
            return
        better = max if self._directions[0] == "maximize" else min
        self.best = objective[0] if self.best is None else better(self.best, objective[0])

    def again(self) -> None:
        """A point that had ended runs again."""
        self.ended -= 1


@dataclasses.dataclass
class Program:
    """A program and the points that wait for it, by number."""

    example: Point
    queue: deque[Proposal] = dataclasses.field(default_factory=deque)

    @functools.cached_property
    def cost(self) -> tuple[float, int]:
        """``step_cost``, which traces the program: seconds."""
        return step_cost(self.example.outer)


class Queues:
    """The waiting points of a sweep.

    Args:
        context: of the sweep.
        recorder: told of points that cannot begin.
        standing: counts them.
    """

    def __init__(self, context: Context, recorder: Recorder, standing: Standing) -> None:
        self._study, self._make_point = context.study, context.make_point
        self._limit, self._say = context.spec.study.batch, context.progress.say
        self._recorder, self._standing = recorder, standing
        self._programs: dict[Hashable, Program] = {}

    @property
    def programs(self) -> int:
        """Programs met so far."""
        return len(self._programs)

    @property
    def exhausted(self) -> bool:
        """No point waits and none is to come."""
        return self._study.asked >= self._study.total and not any(p.queue for p in self._programs.values())

    def ask(self) -> None:
        """Fills the queues: with everything, or as far as an adaptive study lets points run at once."""
        while self._limit is None or self._study.asked - self._standing.ended < self._limit:
            proposal = self._study.ask()
            if proposal is None:
                return
            self.add(proposal)

    def add(self, proposal: Proposal) -> None:
        """Queues a point with its program; one that cannot be built fails alone, by name."""
        try:
            point = self._make_point(proposal.number, proposal.values)
        except MetalabError as error:
            self._fail(proposal, str(error), "")
            return
        self.program_of(point).queue.append(proposal)

    def program_of(self, point: Point) -> Program:
        """The program that a point belongs to."""
        return self._programs.setdefault(jax.tree.structure(point.outer), Program(point))

    def take(self, program: Program) -> Point | None:
        """The next point of a program; None: none waits."""
        self.ask()
        if not program.queue:
            return None
        proposal = program.queue.popleft()
        return self._make_point(proposal.number, proposal.values)

    def next(self, beside: Program | None = None) -> Program | None:
        """The program, other than ``beside``, whose first waiting point was asked first."""
        self.ask()
        waiting = [p for p in self._programs.values() if p.queue and p is not beside]
        return min(waiting, key=lambda program: program.queue[0].number) if waiting else None

    def fail(self, program: Program, error: Exception) -> None:
        """A program that cannot be compiled: the points that wait for it fail, each with the reason."""
        text = "".join(traceback.format_exception(error))
        while program.queue:
            self._fail(program.queue.popleft(), cause_of(error), text)
            self.ask()

    def _fail(self, proposal: Proposal, reason: str, text: str) -> None:
        self._recorder.fail(proposal.number, proposal.values, reason, text)
        self._study.end(proposal.number, "failed", None, steps=0, reason=reason)
        self._standing.note(None)
        self._say(f"point {proposal.number} failed: {reason}")

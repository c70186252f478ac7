"""Studies: which points come next. A grid all at once, or Optuna asked in batches and told afterwards.

Optuna's ledger lies in ``study.db`` of the sweep's folder. A trial that was asked and never told (the
engine was killed, or the point failed) is asked again, under its old number, in its old batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from metalab.errors import MetalabError
from metalab.spec import Study, SweepSpec
from metalab.sweep.records import digest_of
from metalab.sweep.space import Dimension, grid_points, parse_space

if TYPE_CHECKING:
    import optuna

__all__ = ["Proposal", "Proposals", "make_study", "sampled_points"]

SAMPLERS = ("grid", "random", "qmc", "tpe")


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A point to run: its number in the sweep and the values of the searched keys."""

    number: int
    values: Mapping[str, Any]


class Proposals(Protocol):
    """Where a sweep's points come from."""

    @property
    def finished(self) -> int:
        """Points that earlier calls finished and that are not proposed again."""
        ...

    def ask(self) -> list[Proposal]:
        """The next batch; empty when there is no more to do."""
        ...

    def tell(self, proposal: Proposal, value: float | None) -> None:
        """The objective's value; None: the point did not finish."""
        ...

    def first(self) -> Mapping[str, Any]:
        """The values of point 0, once it has been asked."""
        ...

    def forget(self) -> None:
        """Drops what earlier calls have left."""
        ...


def make_study(spec: SweepSpec, folder: Path, digest: str, single: bool = False) -> Proposals:
    """The study that a sweep file asks for.

    Args:
        spec: the sweep.
        folder: where ``study.db`` lies.
        digest: of the sweep's question: another question is another study.
        single: the search space is left aside.

    Raises:
        MetalabError: an unknown sampler, or a sampler without a number of points.
    """
    if single or not spec.search:
        return _Grid([{}])
    space = parse_space(spec.search)
    if spec.study.sampler == "grid":
        points = grid_points(space)
        return _Grid(points if spec.study.points is None else points[: spec.study.points])
    if spec.study.points is None:
        raise MetalabError(f"study.points: the {spec.study.sampler} sampler needs a number of points")
    name = digest_of([digest, dict(spec.search), spec.study.sampler, spec.study.seed, spec.study.direction])
    return _Asked(spec.study, space, spec.study.points, folder / "study.db", name)


def sampled_points(
    space: Mapping[str, Dimension], sampler: str, count: int, seed: int
) -> list[dict[str, Any]]:
    """``count`` points of a space, all at once, for example the settings a baseline is tuned over."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=_sampler(sampler, seed, 0))
    distributions = {key: dimension.optuna() for key, dimension in space.items()}
    trials = [study.ask(distributions) for _ in range(count)]
    return [_decoded(space, trial.params) for trial in trials]


class _Grid:
    """All points in one batch."""

    finished = 0

    def __init__(self, points: Sequence[Mapping[str, Any]]) -> None:
        self._points = points
        self._asked = False

    def ask(self) -> list[Proposal]:
        if self._asked:
            return []
        self._asked = True
        return [Proposal(number, values) for number, values in enumerate(self._points)]

    def tell(self, proposal: Proposal, value: float | None) -> None:
        """A grid learns nothing."""

    def first(self) -> Mapping[str, Any]:
        return self._points[0]

    def forget(self) -> None:
        """A grid keeps nothing."""


class _Asked:
    """Points asked of Optuna batch by batch."""

    def __init__(
        self, settings: Study, space: Mapping[str, Dimension], total: int, path: Path, name: str
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._settings, self._space, self._total = settings, space, total
        self._distributions = {key: dimension.optuna() for key, dimension in space.items()}
        self._address, self._name = f"sqlite:///{path}", name
        self._study = self._open()
        self.finished = sum(trial.state.is_finished() for trial in self._trials())
        self._proposed: set[int] = set()

    def ask(self) -> list[Proposal]:
        waiting = [t for t in self._trials() if not t.state.is_finished() and t.number not in self._proposed]
        size = self._settings.batch or self._total
        asked = len(self._trials())
        if not waiting and asked >= self._total:
            return []
        # A batch that a kill has cut short is filled up to the end it would have had.
        batch = (waiting[0].number if waiting else asked) // size
        end = min((batch + 1) * size, self._total)
        numbers = [trial.number for trial in waiting if trial.number < end]
        for number in range(asked, end):
            # A sampler of a fixed seed would repeat its first suggestions after a restart.
            self._study.sampler = _sampler(self._settings.sampler, self._settings.seed, number)
            numbers.append(self._study.ask(self._distributions).number)
        self._proposed.update(numbers)
        trials = self._trials()
        return [Proposal(number, _decoded(self._space, trials[number].params)) for number in numbers]

    def tell(self, proposal: Proposal, value: float | None) -> None:
        if value is None:  # stays open: the next call runs it again
            return
        if math.isfinite(value):
            self._study.tell(proposal.number, value, skip_if_finished=True)
        else:
            failed = self._optuna.trial.TrialState.FAIL
            self._study.tell(proposal.number, state=failed, skip_if_finished=True)

    def first(self) -> Mapping[str, Any]:
        return _decoded(self._space, self._trials()[0].params)

    def forget(self) -> None:
        self._optuna.delete_study(study_name=self._name, storage=self._address)
        self._study = self._open()
        self.finished = 0

    def _open(self) -> optuna.Study:
        return self._optuna.create_study(
            storage=self._address,
            study_name=self._name,
            direction=cast(Literal["minimize", "maximize"], self._settings.direction),
            load_if_exists=True,
        )

    def _trials(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)


def _decoded(space: Mapping[str, Dimension], params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dimension.decode(params[key]) for key, dimension in space.items()}


def _sampler(name: str, seed: int, number: int) -> Any:
    """The sampler for trial ``number``, its seed the study's and the trial's together."""
    import optuna

    derived = int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")
    if name == "random":
        return optuna.samplers.RandomSampler(seed=derived)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=derived)
    if name == "qmc":  # counts its points in the study itself; another seed would be another sequence
        # Choices and the first point are not part of the sequence: they are drawn at random.
        others = optuna.samplers.RandomSampler(seed=derived)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, independent_sampler=others)
    raise MetalabError(f"study.sampler: got {name!r}, expected one of {', '.join(SAMPLERS)}")

"""The study of a sweep: which point comes next, which one is given up, what came of each.

Points are Optuna's trials, kept in a journal (``metalab.sweep.journal``) that is written at commits. Cut at a
committed position and asked the same again, a study gives the same answers: nothing in it hangs on the clock
or on what a process remembers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from metalab.errors import MetalabError
from metalab.spec import Study as Settings
from metalab.sweep.records import over_seeds
from metalab.sweep.space import POINT, Space

if TYPE_CHECKING:
    import optuna

    from metalab.sweep.journal import Journal

__all__ = ["Proposal", "Record", "Status", "Study", "sampled_points"]

Status = Literal["running", "finished", "pruned", "diverged", "failed"]
_NAME = "metalab"  # hyperband hashes a study's name: the same for all
_END = "end"  # attribute of a trial: how it ended
_NUMBER = "number"  # attribute of a trial: of its point


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A point to run: its number in the sweep and the values of the searched keys."""

    number: int
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a point.

    Attributes:
        number: in the sweep, from 0.
        values: the searched keys and what they are there.
        status: ``running``, ``finished``, ``pruned``, ``diverged`` or ``failed``.
        objective: one value for each objective, which need not be finite; None: there is none.
        steps: outer steps that it ran.
        reason: why it ended, where that is not plain.
    """

    number: int
    values: Mapping[str, Any]
    status: Status = "running"
    objective: tuple[float, ...] | None = None
    steps: int = 0
    reason: str = ""


class Study:
    """Asks for points, hears of them, and remembers.

    Attributes:
        total: number of points of the whole study.
    """

    @classmethod
    def open(cls, settings: Settings, space: Space, path: Path, position: int | None = None) -> Study:
        """The study in a journal.

        Args:
            settings: the file's ``study`` section.
            space: the points that there are; one without keys has a single point.
            path: of the journal; it need not be there.
            position: number of logs that count, as ``commit`` returned it; what is behind is cut off.
                0: an empty study; None: all logs.

        Raises:
            MetalabError: the journal was altered, its objectives are others, or ``points`` is missing.
        """
        from metalab.sweep.journal import Journal

        return cls(settings, space, Journal(path, position))

    def __init__(self, settings: Settings, space: Space, journal: Journal) -> None:
        """Use ``open``."""
        import optuna

        from metalab.sweep.journal import Storage
        from metalab.sweep.pruners import make_pruner

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._settings, self._space, self._journal = optuna, settings, space, journal
        self._listed = settings.sampler == "grid" or space.listed is not None or not space.keys
        self.total = self._number_of_points()
        self._storage = Storage(journal)
        self._study = self._opened(make_pruner(settings.pruner))
        self._id = self._storage.get_study_id_from_name(_NAME)
        self._records: dict[int, Record] = {}
        self._trials: dict[int, int] = {}  # a point's number to the number of its newest trial
        for trial in self._study.get_trials(deepcopy=False):
            self._remember(trial)

    @property
    def asked(self) -> int:
        """Number of points that have been asked for."""
        return len(self._records)

    def ask(self) -> Proposal | None:
        """The next point; None: all have been asked for."""
        number = self.asked
        if number >= self.total:
            return None
        if self._listed:
            place = self._optuna.distributions.IntDistribution(0, max(self._space.size or 1, number + 1) - 1)
            self._add({POINT: number}, {POINT: place}, number, {})
        else:
            self._study.sampler = _sampler(self._settings, self._space, number)
            trial = self._study.ask()
            self._space.suggest(trial)
            trial.set_user_attr(_NUMBER, number)
            self._remember(self._trial_at(trial.number))
        return self.proposal(number)

    def attempt(self, number: int) -> int:
        """What tells this run of a point from any other run of any point: the number of its newest trial."""
        return self._trials[number]

    def proposal(self, number: int) -> Proposal:
        """A point that has been asked for, once more."""
        return Proposal(number, self._records[number].values)

    def retry(self, number: int) -> Proposal:
        """A point that has failed, to be run again under its number: a new trial with the same values."""
        assert self._records[number].status in ("failed", "diverged"), self._records[number]
        old = self._trial(number)
        # What a sampler noted of the old trial, such as its generation, holds for the new one too.
        noted = {
            key: value for key, value in old.system_attrs.items() if not key.startswith("completed_rung")
        }
        self._add(old.params, old.distributions, number, noted)
        return self.proposal(number)

    def report(self, number: int, step: int, values: np.ndarray) -> None:
        """Hears how a point does. Without a pruner nobody would read it, and nothing is kept.

        Args:
            number: of the point.
            step: outer step.
            values: [S] the objective so far of each seed.
        """
        from metalab.sweep.pruners import LOST, seeds_key

        if self._settings.pruner.kind == "none" or len(self._settings.objectives) > 1:
            return
        trial, value = self._trial_id(number), self.over_seeds(values)
        if self._settings.pruner.kind == "wilcoxon":
            finite = [float(one) if math.isfinite(one) else None for one in values]
            self._storage.set_trial_user_attr(trial, seeds_key(step), finite)
        if math.isfinite(value):
            self._storage.set_trial_intermediate_value(trial, step, value)
        lost = None if math.isfinite(value) else step
        if self._trial(number).user_attrs.get(LOST) != lost:
            self._storage.set_trial_user_attr(trial, LOST, lost)

    def should_prune(self, number: int) -> bool:
        """Whether a point is to be given up after what it has reported."""
        if self._records[number].status != "running":
            return False
        return bool(self._study.pruner.prune(self._study, self._trial(number)))

    def end(
        self,
        number: int,
        status: Status,
        objective: Sequence[float] | None = None,
        *,
        steps: int = 0,
        reason: str = "",
    ) -> None:
        """A point has ended. Saying it again changes nothing.

        Args:
            number: of the point.
            status: any but ``running``.
            objective: one value for each objective; the sampler learns from them if all are finite.
            steps: outer steps that it ran.
            reason: in words.
        """
        assert status != "running"
        if self._records[number].status != "running":
            return
        values = None if objective is None else [float(value) for value in objective]
        told = None if values is None else [v if math.isfinite(v) else repr(v) for v in values]
        end = {"status": status, "objective": told, "steps": int(steps), "reason": reason}
        self._storage.set_trial_user_attr(self._trial_id(number), _END, end)
        states = self._optuna.trial.TrialState
        if status == "finished" and values is not None and all(map(math.isfinite, values)):
            self._study.tell(self._trials[number], values)
        else:
            state = states.PRUNED if status == "pruned" else states.FAIL
            self._study.tell(self._trials[number], state=state)
        self._remember(self._trial(number))

    def over_seeds(self, values: Sequence[float] | np.ndarray, objective: int = 0) -> float:
        """One number of the seeds', as the study says; a seed that is not finite counts as the worst.

        Args:
            values: [S] of each seed.
            objective: which of the objectives they are of.
        """
        worst = -np.inf if self._settings.directions[objective] == "maximize" else np.inf
        array = np.asarray(values, np.float64)
        return over_seeds(np.where(np.isfinite(array), array, worst), self._settings.over_seeds)

    def records(self) -> list[Record]:
        """Every point that has been asked for, by number; of a point that was run again the newest run."""
        return [self._records[number] for number in sorted(self._records)]

    def best(self, records: Iterable[Record]) -> list[int]:
        """Numbers of the points that finished with finite objectives, best first.

        With several objectives: those that no other point beats in one of them without losing in another.
        """
        signs = [1.0 if direction == "maximize" else -1.0 for direction in self._settings.directions]
        scores = {}
        for record in records:
            values = record.objective
            if record.status == "finished" and values is not None and all(map(math.isfinite, values)):
                scores[record.number] = tuple(sign * v for sign, v in zip(signs, values, strict=True))
        if len(signs) > 1:
            scores = _front(scores)
        return sorted(scores, key=lambda number: (*(-score for score in scores[number]), number))

    def commit(self) -> int:
        """Puts all of it safely on disk; returns the position to open it at."""
        return self._journal.commit()

    def _number_of_points(self) -> int:
        points = self._settings.points
        if self._listed:
            self._space.check_grid()
            size = self._space.size or 0
            return size if points is None else min(points, size)
        if points is None:
            raise MetalabError(f"study.points: the {self._settings.sampler} sampler needs a number of points")
        return points

    def _opened(self, pruner: optuna.pruners.BasePruner) -> optuna.Study:
        sampler = self._optuna.samplers.RandomSampler(seed=self._settings.seed)
        if not self._journal.read_logs(0):
            return self._optuna.create_study(
                storage=self._storage,
                study_name=_NAME,
                directions=cast(list[Literal["minimize", "maximize"]], list(self._settings.directions)),
                sampler=sampler,
                pruner=pruner,
            )
        study = self._optuna.load_study(
            storage=self._storage, study_name=_NAME, sampler=sampler, pruner=pruner
        )
        before = [direction.name.lower() for direction in study.directions]
        if before != list(self._settings.directions):
            now = ", ".join(self._settings.directions)
            raise MetalabError(
                f"study.direction: this study was begun with {', '.join(before)} and the file says {now}; "
                "give the sweep another name or start it with --fresh"
            )
        return study

    def _add(
        self, params: dict[str, Any], distributions: dict[str, Any], number: int, noted: dict[str, Any]
    ) -> None:
        """A trial whose values no sampler has to find."""
        trial = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs={_NUMBER: number},
            system_attrs=noted,
        )
        trial_id = self._storage.create_new_trial(self._id, trial)
        self._remember(self._storage.get_trial(trial_id))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, self._trials[number])

    def _trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self._trial_at(self._trials[number])

    def _trial_at(self, trial_number: int) -> optuna.trial.FrozenTrial:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, trial_number)
        return self._storage.get_trial(trial_id)

    def _remember(self, trial: optuna.trial.FrozenTrial) -> None:
        number = trial.user_attrs[_NUMBER]
        known = self._records.get(number)
        values = self._values(trial) if known is None else known.values
        end = trial.user_attrs.get(_END)
        self._trials[number] = trial.number
        self._records[number] = Record(number, values) if end is None else _ended(number, values, end)

    def _values(self, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        try:
            return (
                self._space.point(trial.params[POINT]) if self._listed else self._space.decode(trial.params)
            )
        except (KeyError, IndexError) as error:
            raise MetalabError(
                f"search: the values {trial.params} of an earlier point are no longer in the search space; "
                "undo the change, give the sweep another name or start it with --fresh"
            ) from error


def sampled_points(space: Space, sampler: str, count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` points of a space, all at once, for example the settings a baseline is tuned over.

    Raises:
        MetalabError: the sampler is not known.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = Settings(sampler, count, None, seed, ("",), ("maximize",), "mean")
    study = optuna.create_study(sampler=_sampler(settings, space, 0))
    return [space.suggest(study.ask()) for _ in range(count)]


def _sampler(settings: Settings, space: Space, number: int) -> optuna.samplers.BaseSampler:
    from metalab.sweep.samplers import make_sampler

    return make_sampler(settings, number, space.conditional)


def _ended(number: int, values: Mapping[str, Any], end: Mapping[str, Any]) -> Record:
    told = end["objective"]
    objective = None if told is None else tuple(map(float, told))
    return Record(number, values, end["status"], objective, end["steps"], end["reason"])


def _front(scores: Mapping[int, tuple[float, ...]]) -> dict[int, tuple[float, ...]]:
    """The scores that no other dominates; larger is better."""
    return {
        number: own
        for number, own in scores.items()
        if not any(
            other != own and all(theirs >= ours for theirs, ours in zip(other, own, strict=True))
            for other in scores.values()
        )
    }

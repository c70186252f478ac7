"""A sweep's points as its folder tells them, read without Optuna and without touching anything.

An engine may be writing while we read. Only what its last commit names counts, and that is never changed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from metalab.errors import MetalabError
from metalab.sweep.ledger import Manifest
from metalab.sweep.space import POINT, Space, parse_space

__all__ = ["Outcome", "StudyLog", "best_first", "read_mapping", "read_space", "read_study_log"]

# Operations of Optuna's journal that say something about points, and its directions; both are its format.
_CREATE_STUDY, _CREATE_TRIAL, _SET_PARAM, _SET_USER_ATTRIBUTE = 0, 4, 5, 8
_DIRECTIONS = {1: "minimize", 2: "maximize"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a point.

    Attributes:
        number: in the sweep, from 0.
        status: ``running`` (or waiting to run), ``finished``, ``pruned``, ``diverged`` or ``failed``.
        objective: a value for each objective, which need not be finite; None: there is none.
        steps: outer steps that it ran.
        reason: why it ended, where that is not plain.
        params: the trial's parameters as Optuna stores them; ``values`` says what they mean.
    """

    number: int
    status: str = "running"
    objective: tuple[float, ...] | None = None
    steps: int = 0
    reason: str = ""
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def values(self, space: Space) -> dict[str, Any]:
        """The searched keys and what they are at this point."""
        if POINT in self.params:  # of a grid or a list: its place
            return space.point(int(self.params[POINT]))
        return space.decode(self.params)


@dataclasses.dataclass(frozen=True)
class StudyLog:
    """A study as a commit left it.

    Attributes:
        directions: ``maximize`` or ``minimize``, one for each objective; empty: nothing is written yet.
        outcomes: of the points that have been asked for, by number; of one that ran again its newest run.
    """

    directions: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def best(self) -> list[Outcome]:
        """The points that finished with finite objectives, best first; of several objectives the front."""
        scores = {
            one.number: one.objective
            for one in self.outcomes
            if one.status == "finished" and one.objective is not None
        }
        by_number = {one.number: one for one in self.outcomes}
        return [by_number[number] for number in best_first(scores, self.directions)]


def best_first(scores: Mapping[int, Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Keys of finite scores, best first; of equal ones the smaller key.

    Args:
        scores: key to one value an objective.
        directions: ``maximize`` or ``minimize``, one for each objective. With several, only those are left
            that no other score beats in one objective without losing in another (the Pareto front).

    >>> best_first({0: (1.0,), 1: (3.0,), 2: (float("nan"),)}, ["maximize"])
    [1, 0]
    >>> best_first({0: (1.0, 5.0), 1: (3.0, 7.0), 2: (0.5, 6.0)}, ["maximize", "minimize"])
    [1, 0]
    """
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
    gains = {
        key: tuple(sign * value for sign, value in zip(signs, values, strict=True))
        for key, values in scores.items()
        if all(map(math.isfinite, values))
    }
    order = sorted(gains, key=lambda key: (*(-gain for gain in gains[key]), key))
    if len(signs) == 1:
        return order
    front: list[int] = []
    for key in order:  # whoever dominates comes earlier, or is dominated by one that does
        if not any(_dominates(gains[other], gains[key]) for other in front):
            front.append(key)
    return front


def read_study_log(path: Path, position: int) -> StudyLog:
    """The study in a journal.

    Args:
        path: of ``study.jsonl``.
        position: number of logs that the last commit knows; what is behind has not happened.

    Raises:
        MetalabError: it holds fewer, or something else than logs.
    """
    directions: tuple[str, ...] = ()
    trials: list[_Trial] = []
    for log in _logs(path, position):
        code = log["op_code"]
        if code == _CREATE_STUDY:
            directions = tuple(_DIRECTIONS[direction] for direction in log["directions"])
        elif code == _CREATE_TRIAL:
            trials.append(
                _Trial(log.get("params", {}), log.get("distributions", {}), log.get("user_attrs", {}))
            )
        elif code == _SET_PARAM:
            trial, name = trials[log["trial_id"]], log["param_name"]
            trial.params[name], trial.distributions[name] = log["param_value_internal"], log["distribution"]
        elif code == _SET_USER_ATTRIBUTE:
            trials[log["trial_id"]].attributes.update(log["user_attr"])
    # A point that ran again has several trials, the newest last.
    outcomes = {one.number: one for one in map(_outcome, trials)}
    return StudyLog(directions, tuple(outcomes[number] for number in sorted(outcomes)))


def read_space(folder: Path, manifest: Manifest) -> Space:
    """The search space of the sweep in a folder.

    Raises:
        MetalabError: the folder's ``sweep.yaml`` cannot be read, or was changed.
    """
    if "points" in manifest.space:
        return parse_space(manifest.space["points"])
    if not manifest.space["axes"]:
        return Space()
    space = parse_space(read_mapping(folder / "sweep.yaml").get("search"))
    # The order of the keys is that of the grid's points.
    if list(space.plain()["axes"].items()) != list(manifest.space["axes"].items()):
        raise MetalabError(f"{folder / 'sweep.yaml'}: its search is not that of the sweep; it was changed")
    return space


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        MetalabError: there is none.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MetalabError(f"{path}: cannot be read ({error}); `metalab sweep FILE` writes it") from error
    if not isinstance(found, dict):
        raise MetalabError(f"{path}: expected a mapping; `metalab sweep FILE` writes it anew")
    return found


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))


@dataclasses.dataclass
class _Trial:
    """A trial of the journal: parameters and their distributions by name, and its user attributes."""

    params: dict[str, Any]
    distributions: dict[str, str]
    attributes: dict[str, Any]


def _outcome(trial: _Trial) -> Outcome:
    params = {name: _stored(value, trial.distributions[name]) for name, value in trial.params.items()}
    number, end = trial.attributes["number"], trial.attributes.get("end")
    if end is None:
        return Outcome(number, params=params)
    told = end["objective"]
    objective = None if told is None else tuple(map(float, told))
    return Outcome(number, end["status"], objective, end["steps"], end["reason"], params)


def _stored(value: float, distribution: str) -> Any:
    """A parameter from Optuna's number for it: a choice is noted by its place."""
    described = json.loads(distribution)
    if described["name"] == "CategoricalDistribution":
        return described["attributes"]["choices"][int(value)]
    return int(value) if described["name"] == "IntDistribution" else value


def _logs(path: Path, position: int) -> Iterator[dict[str, Any]]:
    if position == 0:
        return
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield json.loads(line)
                if number == position:
                    return
    except OSError as error:
        raise MetalabError(f"{path}: cannot be read ({error})") from error
    except ValueError as error:
        raise MetalabError(f"{path}, line {number}: not a log ({error}); the file was altered") from error
    raise MetalabError(f"{path} holds {number} logs where {position} were committed: it was altered or lost")

"""Students of learning histories: how fast they learn in context, beside the source that they were taught by.

Of every set that the points met, the lives of points and baselines are laid on one axis of inner updates. A
baseline that lives longer on a set of its own (``points: false``) with the same tasks is shown with that
longer life: a source is slower than its student.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.frames import SweepData
from analysis.lives import Lives, final_lives
from analysis.objectives import FINISHED
from analysis.statistics import Floats

__all__ = [
    "LAST_UPDATES",
    "LEARNERS",
    "Learner",
    "distilled_sets",
    "learners_on",
    "optimum_of",
    "student_table",
    "values_in_words",
]

LAST_UPDATES = 10  # inner updates at the end of a life whose mean is reported, at most a fifth of it
SOLVED = 0.9  # share of its task's optimum that a life must return at its end
SHARES = (0.5, 0.7)  # of the optimum, to which the updates are counted
_SOURCE = "source"  # the baseline that ratios are taken to, if there is one of this name
LEARNERS = 6  # lines of a panel at most


@dataclasses.dataclass(frozen=True)
class Learner:
    """Who lives on a set.

    Attributes:
        label: in tables and pictures.
        is_point: a student, not a baseline.
        updates: [U] inner updates lived at each assessment, birth included.
        returns: [S, P, U].
    """

    label: str
    is_point: bool
    updates: Floats
    returns: Floats

    @property
    def curve(self) -> Floats:
        """[S, U] mean over the tasks."""
        return self.returns.mean(axis=1)

    @property
    def end(self) -> Floats:
        """[S, P] mean of the assessments in the last updates; of a short life the last fifth."""
        last = self.updates[-1]
        late = self.updates > last - max(1, min(LAST_UPDATES, last // 5))
        return self.returns[..., late].mean(axis=-1)

    def reaches(self, value: float) -> Floats:
        """[S] updates until the mean over the tasks is first at ``value``; NaN where it never is."""
        above = self.curve >= value
        first = self.updates[np.argmax(above, axis=1)]
        return np.where(above.any(axis=1), first, np.nan)


def distilled_sets(data: SweepData) -> list[str]:
    """The sets that points met, in the file's order."""
    return [name for name, entry in _sets(data).items() if entry.get("points", True)]


@functools.lru_cache(maxsize=64)
def learners_on(data: SweepData, name: str) -> tuple[Learner, ...]:
    """Finished points, then baselines that learn, on a set."""
    found = []
    for row in data.rows("point"):
        if row["status"] == FINISHED:
            found.append(_learner(data, row["run_id"], name, values_in_words(data, row), True))
    longer = _longer(data, name)
    for row in data.rows("baseline"):
        own = [_learner(data, row["run_id"], one, row["label"], False) for one in (*longer, name)]
        found.append(next((one for one in own if one is not None), None))
    return tuple(one for one in found if one is not None)


def optimum_of(data: SweepData, name: str) -> Floats | None:
    """[P] the best return of every task of a set; None: the baseline `optimal` knows of none of them."""
    run_id = next((row["run_id"] for row in data.rows("baseline") if row["label"] == "optimal"), None)
    for one in (name, *_same_tasks(data, name)):
        lives = final_lives(data, run_id, one) if run_id else None
        if lives is not None and lives.returns.size:
            return lives.returns.mean(axis=(0, 2))
    return None


def student_table(data: SweepData, name: str) -> pd.DataFrame:
    """A row a learner: the end of life, the tasks solved, and the updates to shares of the optimum.

    Columns: ``set, learner, point, end, end_low, end_high, of_optimum, solved``, then for each share
    ``to_NN, to_NN_low, to_NN_high, never_NN`` (seeds that never get there, left out of the mean) and
    ``faster_NN, faster_NN_low, faster_NN_high`` (the source's updates over its own); ``n_seeds, n_tasks``.
    """
    learners, best = learners_on(data, name), optimum_of(data, name)
    source = next((one for one in learners if one.label == _SOURCE), None)
    return pd.DataFrame([_row(name, one, best, source) for one in learners])


def values_in_words(data: SweepData, row: Mapping[str, Any]) -> str:
    """A point by what its entry of the search says; the file as it stands has the point's own label."""
    search, number = data.config.get("search"), row["number"]
    if isinstance(search, list) and number is not None and not np.isnan(number):
        values: Mapping[str, Any] = search[int(number)] or {}
    else:
        values = {key: row[key] for key in data.searched if row[key] is not None}
    words = ", ".join(f"{key.removeprefix('inner.')} {value}" for key, value in values.items())
    return words or "student as in the file"


def _row(name: str, one: Learner, best: Floats | None, source: Learner | None) -> dict[str, Any]:
    cells: dict[str, Any] = {"set": name, "learner": one.label, "point": one.is_point}
    cells |= _ends("end", statistics.crossed_bootstrap(one.end))
    if best is not None:
        cells["of_optimum"] = float(one.end.mean() / best.mean())
        cells["solved"] = float((one.end >= SOLVED * best).mean())
        for share in SHARES:
            cells |= _time_to(f"{share * 100:.0f}", one, share * float(best.mean()), source)
    return cells | {"n_seeds": one.returns.shape[0], "n_tasks": one.returns.shape[1]}


def _time_to(suffix: str, one: Learner, value: float, source: Learner | None) -> dict[str, Any]:
    """Updates to a return, and how many times as many the source needs."""
    reached = one.reaches(value)
    sound = reached[np.isfinite(reached)]
    cells: dict[str, Any] = {f"never_{suffix}": int(len(reached) - len(sound))}
    if not sound.size:
        return cells
    mean, low, high = statistics.t_interval(sound)
    cells |= _ends(f"to_{suffix}", (mean, np.maximum(low, 0.0), high))  # no life is at it before its birth
    if source is not None and source is not one:
        slower = source.reaches(value)
        slower = slower[np.isfinite(slower)]
        # A seed that begins above the return needed none: no ratio can be given.
        if slower.size and sound.min() > 0:
            ratio = statistics.paired_ratio(slower[:, None], sound[:, None])
            cells |= _ends(f"faster_{suffix}", ratio)
    return cells


def _ends(column: str, interval: Sequence[Any]) -> dict[str, float]:
    return dict(zip((column, f"{column}_low", f"{column}_high"), map(float, interval), strict=True))


def _learner(data: SweepData, run_id: str, name: str, label: str, is_point: bool) -> Learner | None:
    """Who lived along a whole life; None: nobody, or only at one age."""
    lives = final_lives(data, run_id, name)
    if lives is None or lives.returns.size == 0 or len(lives.env_steps) < 2:
        return None
    return Learner(label, is_point, _updates(data, name, lives), lives.returns)


def _updates(data: SweepData, name: str, lives: Lives) -> Floats:
    """[U] of the assessments."""
    return lives.env_steps * (_sets(data)[name]["updates"] / lives.env_steps[-1])


def _longer(data: SweepData, name: str) -> list[str]:
    """Sets of baselines alone that hold the same tasks as ``name``."""
    return [one for one in _same_tasks(data, name) if not _sets(data)[one].get("points", True)]


def _same_tasks(data: SweepData, name: str) -> list[str]:
    """Other sets with the same tasks."""
    sets = _sets(data)

    def tasks(entry: Mapping[str, Any]) -> Any:
        return entry.get("tasks"), entry["count"], entry.get("seed", 0)

    return [other for other in sets if other != name and tasks(sets[other]) == tasks(sets[name])]


def _sets(data: SweepData) -> Mapping[str, Any]:
    return (data.config.get("evaluation") or {}).get("sets") or {}

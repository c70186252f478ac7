"""The learners that an evaluation raised, as arrays: one entry a seed, a task and an assessment.

Conventions, the same as the engine's: the end of life is the mean of the last ``LAST`` assessments; birth
(0 environment steps) is no part of the life's mean; a lifetime that does not hold the threshold at its end
counts with its whole length and one more stride.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.frames import SweepData
from analysis.statistics import Floats

__all__ = ["LAST", "Lives", "final_lives", "last_lives", "threshold_of"]

LAST = 3


@dataclasses.dataclass(frozen=True)
class Lives:
    """All learners that one run raised on one evaluation set with its final meta-parameters.

    Attributes:
        env_steps: [U] environment steps lived at each assessment.
        returns: [S, P, U]; a seed that broke down is NaN.
        seeds: [S] their numbers.
        left_out: seeds without one finite end of life.
    """

    env_steps: Floats
    returns: Floats
    seeds: tuple[int, ...]
    left_out: int

    @property
    def end(self) -> Floats:
        """[S, P] return at the end of life."""
        return self._life()[..., -LAST:].mean(axis=-1)

    @property
    def mean(self) -> Floats:
        """[S, P] return over the whole life."""
        return self._life().mean(axis=-1)

    def steps_to(self, threshold: float) -> tuple[Floats, np.ndarray]:
        """[S, P] environment steps until the threshold is held for good, and [S, P] bool whether it is."""
        reached = statistics.steps_to_threshold(self.env_steps, self.returns, threshold)
        solved = np.isfinite(reached)
        stride = self.env_steps[-1] - self.env_steps[-2] if len(self.env_steps) > 1 else self.env_steps[-1]
        return np.where(solved, reached, self.env_steps[-1] + stride), solved

    def _life(self) -> Floats:
        born = self.env_steps[0] == 0 and len(self.env_steps) > 1
        return self.returns[..., 1:] if born else self.returns


@functools.lru_cache(maxsize=1024)
def final_lives(data: SweepData, run_id: str, set_name: str, metric: str = "return") -> Lives | None:
    """The lives that a run is judged by on a set: those of each seed's last evaluation; None: there are none.

    Seeds whose end of life is not finite on every task are dropped and counted in ``left_out``.
    """
    mine: Any = data.evaluation_groups.get((run_id, set_name, metric))
    return None if mine is None else last_lives(mine)


def last_lives(rows: pd.DataFrame) -> Lives:
    """Rows of one run, set and metric as an array ``[S, P, U]``: of each seed its last evaluation."""
    last: Any = rows.groupby("seed")["outer_step"].transform("max")
    rows = rows[rows["outer_step"] == last]  # pyright: ignore[reportAssignmentType]
    cube: Any = rows.pivot_table(
        index=["seed", "task"], columns="env_steps", values="value", aggfunc="mean", dropna=False
    )
    seeds, tasks = (list(cube.index.unique(level)) for level in ("seed", "task"))
    cube = cube.reindex(pd.MultiIndex.from_product([seeds, tasks]))
    returns = cube.to_numpy(np.float64).reshape(len(seeds), len(tasks), -1)
    sound = np.isfinite(returns[..., -LAST:]).all(axis=(1, 2))
    return Lives(
        env_steps=cube.columns.to_numpy(np.float64),
        returns=returns[sound],
        seeds=tuple(int(seed) for seed, ok in zip(seeds, sound, strict=True) if ok),
        left_out=int((~sound).sum()),
    )


def threshold_of(data: SweepData, set_name: str) -> float | None:
    """Return that counts as solved on a set; None: not asked."""
    entry = data.config.get("evaluation", {}).get("sets", {}).get(set_name) or {}
    value = entry.get("threshold")
    return None if value is None else float(value)

"""Records: what a run stores. Series and evaluations as long tables, meta-parameters as npz with a manifest.

Everything here is numpy on the host; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy import special

__all__ = [
    "Interval",
    "digest_of",
    "evaluation_frame",
    "interval",
    "interval_rows",
    "load_meta_params",
    "over_seeds",
    "plain",
    "save_meta_params",
    "series_frame",
]

Interval = tuple[float, float | None, float | None]
LEVEL = 0.95
META_FORMAT = 1


def digest_of(thing: Any) -> str:
    """A short hash of plain data, the same on every machine."""
    text = json.dumps(thing, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean and 95 % Student t interval over seeds; no bounds for a single seed."""
    array = np.asarray(values, np.float64)
    mean = float(np.mean(array))
    if array.size < 2:
        return mean, None, None
    half = special.stdtrit(array.size - 1, 0.5 + LEVEL / 2) * np.std(array, ddof=1) / math.sqrt(array.size)
    return mean, float(mean - half), float(mean + half)


def interval_rows(key: str, step: int, values: Sequence[float] | np.ndarray) -> list[tuple[str, int, float]]:
    """The rows ``key``, ``key_low`` and ``key_high`` that a run stores of one value per seed."""
    mean, low, high = interval(values)
    rows = [(key, step, mean)]
    if low is not None and high is not None:
        rows += [(f"{key}_low", step, low), (f"{key}_high", step, high)]
    return rows


def over_seeds(values: Sequence[float] | np.ndarray, how: str) -> float:
    """One number for a study from one value per seed: mean, median, iqm or min.

    Raises:
        ValueError: ``how`` is none of them.
    """
    array = np.asarray(values, np.float64)
    if how == "mean":
        return float(np.mean(array))
    if how == "median":
        return float(np.median(array))
    if how == "min":
        return float(np.min(array))
    if how == "iqm":
        # Not scipy.stats.trim_mean: that module takes a second to import, at the end of every short sweep.
        cut = array.size // 4
        return float(np.mean(np.sort(array)[cut : array.size - cut]))
    raise ValueError(f"study.over_seeds: got {how!r}, expected mean, median, iqm or min")


def series_frame(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """The long table (seed, step, metric, value) of metrics given as steps ``[n]`` and values ``[S, n]``."""
    frames = []
    for metric, (steps, values) in series.items():
        seeds = values.shape[0]
        frames.append(
            pd.DataFrame(
                {
                    "seed": np.repeat(np.arange(seeds, dtype=np.int32), len(steps)),
                    "step": np.tile(np.asarray(steps, np.int32), seeds),
                    "metric": metric,
                    "value": np.asarray(values, np.float64).reshape(-1),
                }
            )
        )
    empty = pd.DataFrame(columns=["seed", "step", "metric", "value"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def evaluation_frame(
    name: str,
    curves: Mapping[str, np.ndarray],
    outer_steps: Sequence[int] | np.ndarray,
    ages: np.ndarray,
    steps_per_update: int,
) -> pd.DataFrame:
    """The long table of one evaluation of one point.

    Args:
        name: of the set.
        curves: metric to ``[S, count, points]``.
        outer_steps: [S] outer step at which each seed's meta-parameters were kept.
        ages: [points] inner updates at each assessment.
        steps_per_update: environment steps of one inner update.

    Returns:
        Columns seed, set, task, outer_step, update, env_steps, metric, value.
    """
    frames = []
    for metric, values in curves.items():
        seed, task, point = np.indices(values.shape)
        frames.append(
            pd.DataFrame(
                {
                    "seed": seed.reshape(-1).astype(np.int32),
                    "set": name,
                    "task": task.reshape(-1).astype(np.int32),
                    "outer_step": np.asarray(outer_steps, np.int32)[seed.reshape(-1)],
                    "update": ages[point.reshape(-1)].astype(np.int32),
                    "env_steps": ages[point.reshape(-1)].astype(np.int64) * steps_per_update,
                    "metric": metric,
                    "value": np.asarray(values, np.float64).reshape(-1),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def save_meta_params(folder: Path, meta: Any, extra: Mapping[str, Any]) -> list[Path]:
    """Writes ``meta_params.npz`` (arrays by path) and its manifest ``meta_params.json``.

    Args:
        folder: exists.
        meta: meta-parameters, leaves ``[S, ...]``.
        extra: plain data for the manifest, for example the steps at which each seed's were kept.

    Returns:
        The two files.
    """
    leaves = jax.tree_util.tree_leaves_with_path(meta)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    weights, manifest = folder / "meta_params.npz", folder / "meta_params.json"
    with weights.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    described = {
        key: {"shape": list(value.shape), "dtype": str(value.dtype)} for key, value in arrays.items()
    }
    content = {
        "format": META_FORMAT,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "arrays": described,
        **extra,
    }
    manifest.write_text(json.dumps(content, indent=2) + "\n")
    return [weights, manifest]


def load_meta_params(folder: Path, template: Any) -> Any:
    """Reads what ``save_meta_params`` wrote.

    Args:
        folder: holds both files.
        template: pytree of shapes and dtypes, leaves without the seed axis, as the inner loop makes them.

    Returns:
        Meta-parameters, leaves ``[S, ...]`` numpy.

    Raises:
        ValueError: a file was altered, or the arrays are not those of this inner loop.
    """
    weights, manifest = folder / "meta_params.npz", folder / "meta_params.json"
    content = json.loads(manifest.read_text())
    if content["sha256"] != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise ValueError(f"{weights} is not the file that {manifest.name} describes: its sha256 differs")
    with np.load(weights, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}

    def pick(path: Any, leaf: Any) -> np.ndarray:
        key = jax.tree_util.keystr(path)
        if key not in arrays:
            raise ValueError(f"{weights} has no {key}; it was trained with another inner loop")
        found = arrays[key]
        if found.shape[1:] != leaf.shape or found.dtype != leaf.dtype:
            raise ValueError(
                f"{weights}: {key} is {found.dtype}{list(found.shape[1:])}, this inner loop needs "
                f"{leaf.dtype}{list(leaf.shape)}: meta-parameters of another size"
            )
        return found

    return jax.tree_util.tree_map_with_path(pick, template)


def plain(config: Mapping[str, Any]) -> Any:
    """Plain containers, as YAML's safe dumper wants them."""
    return json.loads(json.dumps(config, default=str))

"""Recordings of a few steps that say of every step where it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metalab.histories import Histories, Manifest, write_manifest, write_part

STATES, ACTIONS = 64, 3


def numbered(lengths: list[int], steps: int, episode: int = 3) -> Histories:
    """Histories of which action and reward tell the step, and the observation history and step."""
    rows, number = np.arange(len(lengths))[:, None], np.arange(steps)[None]
    return Histories(
        obs=(100 * rows + number).astype(np.int16),
        action=np.broadcast_to(number, (len(lengths), steps)).astype(np.int8),
        reward=(number + 1 + 0 * rows).astype(np.int8),
        start=np.broadcast_to(number % episode == 0, (len(lengths), steps)),
        length=np.asarray(lengths, np.int32),
        task=np.arange(len(lengths), dtype=np.int32),
        seed=np.zeros(len(lengths), np.int32),
    )


def random_histories(count: int = 4, steps: int = 12, seed: int = 0) -> Histories:
    """Histories of a world with ``STATES`` states and ``ACTIONS`` actions."""
    rng = np.random.default_rng(seed)
    shape = (count, steps)
    return numbered([steps] * count, steps)._replace(
        obs=rng.integers(STATES, size=shape).astype(np.int8),
        action=rng.integers(ACTIONS, size=shape).astype(np.int8),
        reward=rng.integers(2, size=shape).astype(np.int8),
    )


def write_recording(folder: Path, histories: Histories, **changes: object) -> Path:
    """A recording in ``folder``, of one part; ``changes`` of its manifest."""
    manifest = {
        "name": "toy",
        "split": "train",
        "settings": {},
        "histories": len(histories.length),
        "batch": len(histories.length),
        "steps": histories.action.shape[1],
        "observation_shape": tuple(histories.obs.shape[2:]),
        "num_actions": ACTIONS,
        "num_states": STATES,
        "horizon": 3,
        "command": "metalab record toy.yaml toy",
    }
    write_manifest(folder, Manifest(**{**manifest, **changes}))  # pyright: ignore[reportArgumentType]
    write_part(folder, 0, histories)
    return folder

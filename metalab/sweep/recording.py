"""Recording learning histories: lives of a source learner, every transition of its first environment.

One program raises a batch of lives, vmapped over tasks and seeds; each batch becomes a part file. What a life
draws depends on the recording's seed, the number of its task and its own number alone, and a batch always
has the same lives: a recording that was interrupted goes on to the same histories.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metalab import devices, provenance
from metalab.components import as_arrays
from metalab.contracts import ContractError, check_inner
from metalab.errors import MetalabError, nearest
from metalab.histories import (
    MANIFEST,
    Histories,
    Manifest,
    compact,
    compact_reward,
    missing_parts,
    part_rows,
    read_manifest,
    recordings,
    use_root,
    write_manifest,
    write_part,
)
from metalab.lifetimes import unroll
from metalab.progress import Progress, duration
from metalab.protocols import PyTree, StepOut
from metalab.spec import Recording, SweepSpec
from metalab.sweep.guard import StopRequest, SweepStopped, sweep_lock
from metalab.sweep.lives import set_tasks
from metalab.sweep.meta_test import learned_meta
from metalab.sweep.program import Compiler
from metalab.tracking import flatten

__all__ = ["Expected", "expected", "record_all"]

_BATCH_STEPS = 1 << 22  # transitions of a batch: 13 bytes each on the device and again on the host
_SPOKEN_EVERY = 5.0  # seconds


class Stream(NamedTuple):
    """What one environment of a learner went through; a leading axis each for updates and their steps.

    Attributes:
        obs: [T, ...] what was seen.
        action: [T].
        reward: [T].
        done: [T] bool, the step ended an episode.
    """

    obs: Array
    action: Array
    reward: Array
    done: Array


class Expected(NamedTuple):
    """A recording that a sweep file asks for.

    Attributes:
        name: in the file.
        manifest: what it is, or will be.
        missing: of its parts, how many are still to be recorded.
    """

    name: str
    manifest: Manifest
    missing: int


def expected(spec: SweepSpec) -> list[Expected]:
    """What a sweep file asks for, and what of it lies below the root in use; nothing is recorded.

    Raises:
        MetalabError: a source cannot be recorded; the recording that is there was made with other settings.
    """
    found = []
    for one in spec.recordings:
        wanted, folder = _manifest(one), recordings() / one.path
        if (folder / MANIFEST).is_file():
            wanted = _admitted(folder, wanted)
        found.append(Expected(one.name, wanted, len(missing_parts(folder, wanted))))
    return found


def record_all(
    spec: SweepSpec,
    root: Path,
    names: Collection[str] = (),
    *,
    fresh: bool = False,
    progress: bool | None = None,
) -> list[Path]:
    """Records what a sweep file says and is not there yet.

    Args:
        spec: the composed file.
        root: below which recordings lie.
        names: of recordings; none: all of the file.
        fresh: throw away what is there of them and record anew.
        progress: see ``Progress``.

    Returns:
        The recordings' folders.

    Raises:
        MetalabError: the file has no such recording; a source cannot be recorded; the recording that is there
            was made with other settings.
        SystemExit: 130 or 143 after Ctrl-C or SIGTERM, the finished batches kept.
    """
    use_root(root)
    known = {one.name: one for one in spec.recordings}
    for name in names:
        if name not in known:
            raise MetalabError(f"{spec.path}: record: there is no {name!r}; {nearest(name, known)}")
    if not known:
        return []
    speaker, compiler, folders = Progress(progress), Compiler(), []
    with StopRequest().listening() as stop:
        for name in names or known:
            folder = recordings() / known[name].path
            folders.append(folder)
            try:
                _record(known[name], folder, root, compiler, speaker, stop, fresh)
            except SweepStopped as stopped:
                speaker.say(f"record {name}: stopped; {provenance.command_to_go_on()} goes on")
                raise SystemExit(stopped.exit_code) from None
    return folders


def _record(
    recording: Recording,
    folder: Path,
    root: Path,
    compiler: Compiler,
    progress: Progress,
    stop: StopRequest,
    fresh: bool,
) -> None:
    """Records the parts that are missing."""
    if fresh and (folder / MANIFEST).is_file():
        shutil.rmtree(folder)
    wanted = _manifest(recording)
    if (folder / MANIFEST).is_file():
        code = wanted.origin.get("digest")
        wanted = _admitted(folder, wanted)
        if not missing_parts(folder, wanted):
            return
        if wanted.origin.get("digest") != code:
            progress.say(f"record {recording.name}: the code has changed since this recording began")
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_lock(folder, "recording"):
        if not (folder / MANIFEST).is_file():
            write_manifest(folder, wanted)
        source = _Source(recording, wanted, compiler, _meta_parameters(recording, root))
        begun = spoken = time.monotonic()
        missing = missing_parts(folder, wanted)
        progress.say(f"record {recording.name}: {wanted.histories} histories of {wanted.steps} steps")
        for done, number in enumerate(missing, start=1):
            stop.check()
            write_part(folder, number, source.part(number))
            if time.monotonic() - spoken >= _SPOKEN_EVERY or done == len(missing):
                spoken = time.monotonic()
                progress.say(_told(recording, wanted, missing[:done], len(missing) - done, spoken - begun))


def _told(recording: Recording, manifest: Manifest, done: list[int], left: int, seconds: float) -> str:
    steps = sum(len(part_rows(manifest, number)) for number in done) * manifest.steps
    pace = f"{steps / max(seconds, 1e-3) / 1e6:.2f} M steps/s"
    rest = f", {duration(seconds / len(done) * left)} left" if left else ""
    parts = manifest.parts
    return f"record {recording.name}: {parts - left}/{parts} parts, {pace}{rest}"


class _Source:
    """The program that raises a batch of lives.

    Args:
        recording: what is recorded.
        manifest: its sizes.
        compiler: of the program.
        meta: the source's meta-parameters.
    """

    def __init__(self, recording: Recording, manifest: Manifest, compiler: Compiler, meta: PyTree) -> None:
        self._recording, self._manifest, self._compiler = recording, manifest, compiler
        # Every lane gets the learner and the meta-parameters whole: there is one of them.
        self._leaves, self._structure = jax.tree.flatten((as_arrays(recording.inner), meta))
        draw = jax.jit(set_tasks, static_argnums=(1, 2))
        drawn = draw(as_arrays(recording.tasks), recording.count, recording.seed)
        self._tasks = jax.tree.map(np.asarray, drawn)

    def part(self, number: int) -> Histories:
        """The histories of a part."""
        rows = np.asarray(part_rows(self._manifest, number))
        task, life = np.divmod(rows, self._recording.seeds)
        width = devices.pad_lanes(self._manifest.batch, self._compiler.mesh.size)
        lanes = (
            jax.tree.map(lambda leaf: leaf[task], self._tasks),
            task.astype(np.int32),
            life.astype(np.int32),
        )
        static: tuple[Hashable, ...] = (self._structure, self._recording.seed, self._recording.updates)
        lived: Stream = self._compiler.run(
            "record", _live, devices.padded(lanes, width), shared=self._leaves, static=static
        )
        obs, action, reward, done = (np.asarray(leaf)[: len(rows)] for leaf in lived)
        start = np.concatenate([np.ones_like(done[:, :1]), done[:, :-1]], axis=1)
        return Histories(
            obs=compact(obs),
            action=action.astype(np.int8 if self._manifest.num_actions <= 127 else np.int32),
            reward=compact_reward(reward),
            start=start,
            length=np.full(len(rows), self._manifest.steps, np.int32),
            task=task.astype(np.int32),
            seed=life.astype(np.int32),
        )


class _First:
    """An inner loop that reports of its first environment alone: what nobody keeps is never stacked."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def step(self, key: Array, meta: PyTree, state: PyTree, batch: PyTree) -> tuple[PyTree, StepOut]:
        state, out = self._inner.step(key, meta, state, batch)
        seen = out.record
        done = seen.terminated | seen.truncated
        stream = Stream(seen.obs[:-1, 0], seen.action[:, 0], seen.reward[:, 0], done[:, 0])
        return state, StepOut({}, record=stream)


def _live(task: PyTree, number: Array, life: Array, *rest: Any) -> Stream:
    """One life; leaves ``[S, ...]``. ``rest``: leaves of learner and meta-parameters, and how they belong."""
    *leaves, structure, seed, updates = rest
    inner, meta = jax.tree.unflatten(structure, leaves)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), number), life)
    birth_key, live_key = jax.random.split(key)
    state = inner.init(birth_key, meta, task)
    stream = unroll(_First(inner), live_key, meta, state, updates)[1].record  # pyright: ignore
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stream)


def _meta_parameters(recording: Recording, root: Path) -> PyTree:
    """The source's meta-parameters: as initialised, or those that a run of the store has learned.

    Raises:
        MetalabError: there is no such run or seed, or its learner was another one.
    """
    init = as_arrays(recording.inner).init_meta
    if recording.meta is None:
        return jax.jit(init)(jax.random.key(recording.seed))
    where = f"record.{recording.name}.meta"
    template = jax.eval_shape(init, jax.random.key(0))
    if not jax.tree.leaves(template):
        raise MetalabError(f"{where}: {type(recording.inner).__name__} has no meta-parameters; leave it out")
    learned = learned_meta(recording.meta, root, template, where)
    seeds = jax.tree.leaves(learned)[0].shape[0]
    if recording.meta_seed >= seeds:
        raise MetalabError(
            f"{where}_seed: got {recording.meta_seed}; run {recording.meta} has the seeds 0 to {seeds - 1}"
        )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[recording.meta_seed]), learned)


def _manifest(recording: Recording) -> Manifest:
    """What the recording will be.

    Raises:
        MetalabError: its source breaks the contract, or reports nothing that could be recorded.
    """
    record = _record_shapes(recording)
    steps = recording.updates * record.action.shape[0]
    total = recording.histories
    parts = -(-total * steps // _BATCH_STEPS)
    environment = recording.inner.environment  # pyright: ignore[reportAttributeAccessIssue]
    return Manifest(
        name=recording.path,
        split=_split(recording.tasks),
        settings=json.loads(json.dumps(recording.settings)),
        histories=total,
        batch=-(-total // min(parts, total)),
        steps=steps,
        observation_shape=tuple(record.obs.shape[2:]),
        num_actions=int(environment.num_actions),
        num_states=environment.num_states,
        horizon=getattr(environment, "horizon", None),
        command=provenance.command_to_go_on(),
        origin=provenance.code_version(),
    )


def _split(tasks: Any) -> str:
    """The part of the split that tasks are of, in wrappers or not; empty: they have none."""
    while not hasattr(tasks, "part") and hasattr(tasks, "tasks"):
        tasks = tasks.tasks
    return str(getattr(tasks, "part", ""))


def _record_shapes(recording: Recording) -> Any:
    """What the source reports of one update, as shapes, leaves ``[T, B, ...]``."""
    where, name = f"record.{recording.name}", type(recording.inner).__name__
    inner, tasks = as_arrays(recording.inner), as_arrays(recording.tasks)
    try:
        check_inner(inner, tasks)
    except ContractError as error:
        raise MetalabError(f"{where}: {error}") from error

    def life(key: Array) -> Any:
        task, meta = tasks.sample(key), inner.init_meta(key)
        return inner.step(key, meta, inner.init(key, meta, task), None)[1].record

    record = jax.eval_shape(life, jax.random.key(0))
    if not all(hasattr(record, field) for field in ("obs", "action", "reward", "terminated", "truncated")):
        raise MetalabError(f"{where}.inner: {name} reports no transitions; expected a learner that acts")
    if not jnp.issubdtype(record.action.dtype, jnp.integer):
        raise MetalabError(f"{where}.inner: {name} has continuous actions; histories hold discrete ones")
    return record


def _admitted(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest of the recording that is there, if it is the one that is wanted.

    Raises:
        MetalabError: it was begun with other settings.
    """
    found = read_manifest(folder)
    before, now = flatten(found.settings), flatten(wanted.settings)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise MetalabError(
                f"{folder}: was recorded with {key} = {before.get(key)!r}, the file says {now.get(key)!r}: "
                "give the recording another name, or record it anew: metalab record FILE NAME --fresh"
            )
    return found

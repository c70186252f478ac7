"""Checkpoints: one per pack, atomic, restored through an abstract template.

The state is saved as a flat list of leaves, not by the structure of its classes: NamedTuples, optax states
and empty nodes come back as what the program that runs now says they are, and leaves without elements
(which Orbax refuses) are made anew.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from metalab.trees import Tree

__all__ = ["CheckpointMismatch", "Checkpoints"]


class CheckpointMismatch(ValueError):
    """The checkpoint does not fit the program that wants to continue from it."""


class Checkpoints:
    """The checkpoints of one pack; which of them counts is for the caller to say.

    Args:
        folder: of this pack alone; made when the first checkpoint is saved.
    """

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        # The library reports every save and every restore through the root logger.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        self._folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def keep_only(self, serial: int) -> None:
        """Removes all checkpoints but one: older ones, and one that a kill has left uncommitted."""
        for other in self._manager.all_steps():
            if other != serial:
                self._manager.delete(other)

    def save(self, serial: int, tree: Any, manifest: Mapping[str, Any]) -> None:
        """Writes a checkpoint.

        Args:
            serial: names it; there is none of this name.
            tree: pytree of arrays (typed PRNG keys included).
            manifest: plain data that must be the same when it is restored.
        """
        saved = {_name(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}
        arguments = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(saved),  # pyright: ignore[reportCallIssue]
            manifest=self._ocp.args.JsonSave(_manifest(tree, manifest)),  # pyright: ignore[reportCallIssue]
        )
        self._manager.save(serial, args=arguments, force=True)

    def restore(self, serial: int, template: Tree, manifest: Mapping[str, Any]) -> Tree:
        """Reads a checkpoint.

        Args:
            serial: of one that was saved.
            template: pytree of ``jax.ShapeDtypeStruct`` with shardings, as the program now says.
            manifest: as given to ``save``.

        Raises:
            CheckpointMismatch: it was written by a program of another shape, or for other points.
        """
        wanted = _manifest(template, manifest)
        json_args = self._ocp.args.Composite(manifest=self._ocp.args.JsonRestore())  # pyright: ignore
        found = self._manager.restore(serial, args=json_args)["manifest"]
        _check(self._folder, found, wanted)
        leaves, structure = jax.tree.flatten(template)
        names = {_name(i): leaf for i, leaf in enumerate(leaves) if leaf.size}
        state_args = self._ocp.args.Composite(state=self._ocp.args.StandardRestore(names))  # pyright: ignore
        state = self._manager.restore(serial, args=state_args)["state"]
        restored = [
            state[_name(i)] if leaf.size else jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, restored)

    def close(self, *, remove: bool = False) -> None:
        """Frees the manager; with ``remove`` the pack is done and its checkpoints go."""
        self._manager.close()
        if remove:
            shutil.rmtree(self._folder, ignore_errors=True)


def _name(index: int) -> str:
    return f"leaf_{index:05d}"


def _manifest(tree: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    described = {jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves}
    return json.loads(json.dumps({"leaves": described, **extra}))


def _check(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for path, what in wanted["leaves"].items():
        if found["leaves"].get(path) != what:
            raise CheckpointMismatch(
                f"checkpoint {folder}: {path} is {found['leaves'].get(path)}, this program needs {what}; "
                "the code has changed since: --fresh starts the sweep anew"
            )
    for name, value in wanted.items():
        if found.get(name) != value:
            raise CheckpointMismatch(
                f"checkpoint {folder}: {name} is {found.get(name)!r}, this sweep has {value!r}; "
                "--fresh starts the sweep anew"
            )

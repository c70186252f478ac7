"""MJX behind two functions: a model, made once per process, and what becomes of a body under a control.

The library is loaded when a model is, so that the rest of the package can do without it.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metalab.errors import ConfigError

__all__ = ["loaded", "simulated"]

_MODELS = Path(__file__).parent / "models"


@functools.cache
def loaded(name: str) -> Any:
    """The ``mjx.Model`` of the body ``name``, its arrays held by numpy.

    Numpy's arrays belong to no program and no device, so one model serves every trace of the process.

    Raises:
        ConfigError: MJX is not installed.
    """
    mujoco, mjx = _library()
    model = mujoco.MjModel.from_xml_path(str(_MODELS / f"{name}.xml"))
    with jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, mjx.put_model(model, impl="jax"))


def simulated(name: str, physics: Array, control: Array, substeps: int) -> Array:
    """The body after ``substeps`` steps of its model under one control.

    Args:
        name: of the model.
        physics: [nq + nv] float32, positions (``qpos``), then speeds (``qvel``), in SI units and radians.
        control: [nu] float32, of the model's actuators.
        substeps: each as long as the model's time step.

    Returns:
        [nq + nv] float32.
    """
    _, mjx = _library()
    model = jax.tree.map(jnp.asarray, loaded(name))
    data = mjx.make_data(model, impl="jax")
    data = data.replace(qpos=physics[: model.nq], qvel=physics[model.nq :], ctrl=control)
    data, _ = jax.lax.scan(lambda data, _: (mjx.step(model, data), None), data, length=substeps)
    return jnp.concatenate([data.qpos, data.qvel])


@functools.cache
def _library() -> tuple[Any, Any]:
    """``mujoco`` and ``mujoco.mjx``."""
    try:
        return importlib.import_module("mujoco"), importlib.import_module("mujoco.mjx")
    except ModuleNotFoundError as error:
        raise ConfigError("environment", "needs MuJoCo MJX: pip install 'metalab[mujoco]'") from error

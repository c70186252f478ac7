"""What the tests of sweeps share: a store that exists already, and programs compiled once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from metalab.tracking import client_of


@pytest.fixture(scope="package")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one test has compiled the next one reads from disk."""
    names: dict[str, Any] = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla"))}
    names |= {"jax_persistent_cache_min_compile_time_secs": 0}
    names |= {"jax_persistent_cache_min_entry_size_bytes": -1}
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="package")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs; making one takes seconds, copying it none."""
    root = tmp_path_factory.mktemp("template")
    client_of(root).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, compiled_once: None) -> Path:
    """The folder of a store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path

"""What the tests of sweeps share: a store that exists already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from metalab.tracking import client_of


@pytest.fixture(scope="package")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs; making one takes seconds, copying it none."""
    root = tmp_path_factory.mktemp("template")
    client_of(root).search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """The folder of a store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path

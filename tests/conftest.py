"""Settings of every test; set before JAX starts."""

import os
from pathlib import Path

# Two CPU devices wherever the tests run: sharding is exercised and results do not hang on the core count.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("MLFLOW_TRACKING_URI", None)  # whatever server the developer uses, tests record in files
# What one test or an earlier run has compiled is read from disk: most of a test's time is the compiler's.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import pytest
from hypothesis import settings

# The first example of a property compiles: a deadline per example would measure the compiler.
settings.register_profile("metalab", deadline=None, max_examples=25)
settings.load_profile("metalab")


def pytest_configure(config: pytest.Config) -> None:
    """Tests of a blink compile a third faster without optimisations; the long proofs need them."""
    if config.option.markexpr.startswith("not slow"):
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; making one takes seconds, copying it none."""
    from metalab.tracking import client_of

    root = tmp_path_factory.mktemp("template")
    client_of(root).search_experiments()
    return root / "mlflow.db"

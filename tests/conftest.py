"""Settings of every test; set before JAX starts."""

import os

# Two CPU devices wherever the tests run: sharding is exercised and results do not hang on the core count.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from hypothesis import settings

# The first example of a property compiles: a deadline per example would measure the compiler.
settings.register_profile("metalab", deadline=None, max_examples=25)
settings.load_profile("metalab")

"""``python -m benchmarks``: every benchmark with its usual size, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("meta_step", "packing", "overhead", "ppo", "memory", "evolution", "distillation")


def main() -> int:
    """Runs all; returns the number of those that failed."""
    failed = 0
    for name in BENCHMARKS:
        print(f"# python -m benchmarks.{name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
        print(flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())

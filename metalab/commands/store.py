"""``metalab evaluate``, ``report`` and ``ui``: what is done with runs that are in the store."""

from __future__ import annotations

import argparse
import os
import sys

from metalab.commands.shared import aligned, root_of

__all__ = ["evaluate", "report", "ui"]


def evaluate(arguments: argparse.Namespace) -> int:
    """Meta-tests a run on evaluation suites and prints what it reaches."""
    root = root_of(arguments)
    from analysis.store import require_store

    require_store(root)
    from metalab.devices import configure

    configure(arguments.devices)
    from metalab.config import load_suite

    for name in arguments.tasks:
        load_suite(name)  # a name that is not there is said before anything is read
    from metalab.sweep.meta_test import evaluate_run

    rows = evaluate_run(arguments.run, arguments.tasks, root)
    print("\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)])))
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Writes a sweep's report again and prints where it is."""
    root = root_of(arguments)
    from analysis.report import write_report

    print(write_report(root, arguments.sweep))
    return 0


def ui(arguments: argparse.Namespace) -> int:
    """Becomes MLflow's interface to the store; of a server, says where it is."""
    root = root_of(arguments)
    from analysis.store import require_store
    from metalab.tracking import address, redacted

    require_store(root)
    where = address(root)
    if where.startswith(("http://", "https://")):
        print(f"the runs are on a server, which has its own interface: {redacted(where)}")
        return 0
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", where]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(arguments.port)])

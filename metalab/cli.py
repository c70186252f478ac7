"""The command line: which commands there are and what they take.

Whatever is heavy (JAX, MLflow, Hydra) is imported by the command that needs it: ``--help`` and ``list``
answer at once, and the number of devices is set before JAX starts.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from metalab.commands import curation, listing, reading, recording, running, store
from metalab.commands.shared import use_tracking_uri
from metalab.errors import MetalabError

__all__ = ["main"]

_OVERRIDES = "KEY=VALUE in Hydra's grammar, for example inner.optimizer.learning_rate=0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 1: every point of a sweep failed; 2: a mistake of the user's, told in one line.
    """
    # The console script does not have the current folder on its path; a user's components live there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    arguments = _parsed(argv)
    use_tracking_uri(arguments)
    try:
        return arguments.command(arguments)
    except MetalabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone (``| head``). What is still buffered has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; overrides may stand before, between and after the options."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metalab", description="Meta-learning experiments from sweep files."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="what there is: components, sweep files, evaluation suites")
    command.add_argument("group", nargs="?", help="inner, rule, network, ..., sweeps, suites; all without it")
    command.set_defaults(command=listing.list_all)

    command = commands.add_parser("plan", help="what a sweep file would run, and what it needs")
    _add_file(command)
    command.add_argument("--compile", action="store_true", help="compile, and say the memory XLA needs")
    text = "folder below which recordings lie (default: ./runs)"
    command.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help=text)
    command.set_defaults(command=running.plan)

    command = commands.add_parser("run", help="one point: a sweep file's own values, its search left aside")
    _add_file(command)
    _add_running(command)
    command.set_defaults(command=running.run)

    command = commands.add_parser("sweep", help="all points of a sweep file, its baselines and its report")
    _add_file(command)
    _add_running(command)
    command.add_argument("--no-report", action="store_true", help="write no report at the end")
    command.set_defaults(command=running.sweep)

    _add_of_recording(commands)
    _add_reading(commands)
    _add_of_the_store(commands)
    return parser


def _add_of_recording(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("record", help="record the learning histories that a sweep file stands on")
    text = "a sweep file, or the name of one that comes with metalab"
    command.add_argument("file", metavar="FILE", help=text)
    text = f"recordings of the file (default: all), and overrides: {_OVERRIDES}"
    command.add_argument("overrides", nargs="*", metavar="NAME", help=text)
    command.add_argument("--smoke", action="store_true", help="the file's own smallest size")
    command.add_argument("--fresh", action="store_true", help="throw away what is there, and record it anew")
    _add_root(command)
    _add_devices(command)
    command.set_defaults(command=recording.record)

    command = commands.add_parser(
        "histories", help="the recordings there are, and how their learners learned"
    )
    text = "a recording's name, its sweep's, or a folder; all without it"
    command.add_argument("recording", nargs="?", metavar="NAME", help=text)
    _add_root(command)
    command.set_defaults(command=recording.histories)


def _add_reading(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("status", help="how sweeps stand, also while they run")
    command.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name; without it, all of them")
    command.add_argument("--json", action="store_true", help="for machines")
    _add_root(command)
    command.set_defaults(command=reading.status)

    command = commands.add_parser("best", help="a sweep's best point as a sweep file of its own")
    _add_sweep(command)
    command.add_argument("--point", type=_whole, metavar="N", help="this point instead")
    command.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: print it)")
    command.set_defaults(command=reading.best)

    command = commands.add_parser("export", help="a sweep's points, series and evaluations as tables")
    _add_sweep(command)
    where = "folder to write into (default: ROOT/SWEEP/export)"
    command.add_argument("--to", type=Path, metavar="DIR", help=where)
    command.add_argument("--format", choices=("parquet", "csv"), default="parquet", help="default: parquet")
    command.set_defaults(command=reading.export)


def _add_of_the_store(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("evaluate", help="meta-test trained meta-parameters on other tasks")
    command.add_argument("run", metavar="RUN", help="MLflow's id of a point's run, or its name")
    command.add_argument(
        "--tasks", nargs="+", required=True, metavar="SUITE", help="see `metalab list suites`"
    )
    _add_root(command)
    _add_devices(command)
    command.set_defaults(command=store.evaluate)

    _add_of_curation(commands)

    command = commands.add_parser("report", help="write a sweep's report again")
    _add_sweep(command)
    command.set_defaults(command=store.report)

    command = commands.add_parser("ui", help="browse the runs in MLflow")
    _add_root(command)
    command.add_argument("--port", type=_positive, default=5000)
    command.set_defaults(command=store.ui)


def _add_of_curation(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("rate", help="rate the texts of a corpus with a trained rater")
    command.add_argument("run", metavar="RUN", help="MLflow's id of a point's run, or its name")
    _add_corpus(command)
    text = "Parquet file to write (default: ratings.parquet); a call that was interrupted goes on"
    command.add_argument("--output", type=Path, default=Path("ratings.parquet"), metavar="FILE", help=text)
    text = "which of the run's meta-seeds rates (default: 0)"
    command.add_argument("--seed", type=_whole, default=0, metavar="N", help=text)
    text = "leave aside what an interrupted call rated"
    command.add_argument("--fresh", action="store_true", help=text)
    _add_root(command)
    command.set_defaults(command=curation.rate)

    command = commands.add_parser("filter", help="write the best rated share of a corpus")
    command.add_argument("ratings", type=Path, metavar="RATINGS", help="what `metalab rate` wrote")
    _add_corpus(command)
    text = "of the windows, above 0 and at most 1"
    command.add_argument("--keep", type=_share, required=True, metavar="SHARE", help=text)
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write into")
    text = "keep by chance, as among the best of a batch of N, instead of the best of all"
    command.add_argument("--batch", type=_positive, metavar="N", help=text)
    command.add_argument("--seed", type=_whole, default=0, metavar="N", help="of that chance (default: 0)")
    command.set_defaults(command=curation.filter_)


def _add_corpus(command: argparse.ArgumentParser) -> None:
    text = "files, folders or globs: text, .jsonl, .parquet"
    command.add_argument("--corpus", nargs="+", required=True, metavar="GLOB", help=text)
    text = "that holds the text, in .jsonl and .parquet (default: text)"
    command.add_argument("--column", default="text", metavar="NAME", help=text)


def _add_file(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file", metavar="FILE", help="a sweep file, or the name of one that comes with metalab"
    )
    command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDES)
    command.add_argument("--smoke", action="store_true", help="the file's own smallest size")
    text = "points at once at most (default: as many as fit the memory)"
    command.add_argument("--max-lanes", type=_positive, metavar="N", help=text)
    _add_devices(command)


def _add_running(command: argparse.ArgumentParser) -> None:
    _add_root(command)
    text = "start anew; what an earlier call left, its runs in MLflow included, is lost"
    command.add_argument("--fresh", action="store_true", help=text)
    text = "go on although code or configuration have changed; the change is recorded"
    command.add_argument("--accept-changes", action="store_true", help=text)
    command.add_argument("--retry", action="store_true", help="run failed and diverged points again")
    text = "longest time between two commits; what came after the last one is computed again after a kill"
    command.add_argument("--checkpoint-seconds", type=_seconds, metavar="S", help=text)


def _add_sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument("sweep", metavar="SWEEP", help="its name")
    _add_root(command)


def _add_root(command: argparse.ArgumentParser) -> None:
    text = "folder of the MLflow store and of the sweeps' files (default: ./runs)"
    command.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help=text)
    text = "MLflow server or database in place of the one in the root; as MLFLOW_TRACKING_URI"
    command.add_argument("--tracking-uri", metavar="URI", help=text)


def _add_devices(command: argparse.ArgumentParser) -> None:
    text = "CPU devices (default: one for every core); accelerators are all used"
    command.add_argument("--devices", type=_positive, metavar="N", help=text)


def _positive(text: str) -> int:
    return _at_least(1, text)


def _whole(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    value = int(text) if text.isascii() and text.isdecimal() else least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number at least {least}, got {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, got {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 (after every chunk) or more; got {text!r}")
    return value

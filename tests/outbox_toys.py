"""A small sweep's records, stores that fail or die, and what a store holds in a form that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metalab import outbox as outbox_module
from metalab.outbox import Outbox
from metalab.tracking import Handle, Row, Store, client_of

METRICS = ("train/loss", "train/score")
TAGS = ("metalab.seeds", "metalab.number", "metalab.step")


class FakeStore:
    """What a delivery needs of a store, in memory.

    Args:
        trouble: asked before every call with its name and the run; what it returns is raised.
    """

    def __init__(self, trouble: Callable[..., Exception | None] = lambda call, run: None) -> None:
        self.trouble = trouble
        self.calls: list[tuple[str, str]] = []
        self.points: dict[str, list[Row]] = {}
        self.param: dict[str, dict[str, str]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.files: dict[str, list[str]] = {}

    def _call(self, name: str, run: str) -> None:
        if (error := self.trouble(name, run)) is not None:
            raise error
        self.calls.append((name, run))

    def find(self, digest: str) -> Handle | None:
        self._call("find", digest)
        return Handle(digest, 0, "RUNNING", {}, {}) if digest in self.points else None

    def open(self, kind: str, digest: str, name: str, **more: Any) -> Handle:
        self._call("open", digest)
        self.points.setdefault(digest, [])
        self.tags.setdefault(digest, {}).update({"kind": kind, "name": name, **more["tags"]})
        return Handle(digest, more["start_ms"], "RUNNING", {}, {})

    def params(self, run_id: str, params: dict[str, str]) -> None:
        self._call("params", run_id)
        known = self.param.setdefault(run_id, {})
        if any(known.get(key, value) != value for key, value in params.items()):
            raise ValueError("a param cannot change")
        known.update(params)

    def log(self, run: Handle, rows: list[Row]) -> None:
        self._call("log", run.run_id)
        if any(not isinstance(value, float) for _, _, value in rows):
            raise ValueError("no number")
        self.points[run.run_id] += [(key, step, value) for key, step, value in rows]

    def tag(self, run_id: str, **tags: str) -> None:
        self._call("tag", run_id)
        self.tags[run_id].update(tags)

    def artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        self._call("artifact", run_id)
        inside = [file.name for file in path.iterdir()] if path.is_dir() else [path.name]
        self.files.setdefault(run_id, []).extend(inside)

    def close(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        self._call("close", run_id)
        self.tags[run_id]["status"] = f"{status} {end_ms is not None}"


class MortalClient:
    """A client in whose n-th beginning or end of a call the thread ends, as abruptly as by a kill.

    Args:
        client: does the calls.
        moments: beginnings and ends of calls to live through.
    """

    def __init__(self, client: Any, moments: int) -> None:
        self._client, self._left = client, moments

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._live()
            result = method(*args, **kwargs)
            self._live()
            return result

        return call

    def _live(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise SystemExit  # no handler of errors catches it, and a thread that ends by it is silent


def deliver(root: Path, position: int, at_once: int = outbox_module._AT_ONCE) -> None:
    """What a process does that goes on delivering.

    Args:
        root: of the store; the spool is in its folder ``toy``.
        position: of the last commit.
        at_once: bytes between two acknowledgements.
    """
    outbox_module._AT_ONCE = at_once
    outbox = Outbox(root / "toy", lambda: Store(root, "toy"), position, print)
    outbox.drain()
    outbox.stop()


def record(outbox: Outbox, folder: Path, *, runs: int = 2, steps: int = 3) -> int:
    """The records of a sweep of ``runs`` points, released; returns the position behind them."""
    outbox.open("sweep", "sweep", "toy", tags={"metalab.seeds": 3}, params={"seeds": 3}, start_ms=1_000_000)
    for step in range(steps):
        for run in range(runs):
            if step == 0:
                outbox.open(
                    f"point{run}", "point", f"toy-{run}", parent="sweep",
                    tags={"metalab.number": run}, params={"rate": 0.1 * run, "kind": "sgd"},
                    start_ms=1_000_000 + run,
                )  # fmt: skip
            outbox.log(f"point{run}", [(name, step, run + 0.5 * step) for name in METRICS])
            outbox.tag(f"point{run}", **{"metalab.step": step})
    for run in range(runs):
        files = folder / "records" / str(run)
        files.mkdir(parents=True)
        for name in ("config.yaml", "series.parquet"):
            (files / name).write_text(f"{name} of {run}")
        outbox.artifact(f"point{run}", files, remove=True)
        outbox.close(f"point{run}", "FINISHED")
    (folder / "sweep.yaml").write_text("name: toy")
    outbox.artifact("sweep", folder / "sweep.yaml")
    outbox.close("sweep", "KILLED")
    position = outbox.flush()
    outbox.release(position)
    return position


def expected(runs: int = 2, steps: int = 3) -> dict[str, Any]:
    """What a store holds after ``record``, as ``contents`` gives it."""
    sweep = {
        "status": "KILLED", "parent": None, "params": {"seeds": "3"}, "artifacts": ["sweep.yaml"],
        "metrics": {}, "tags": {"metalab.seeds": "3"},
    }  # fmt: skip
    points = {
        f"toy-{run}": {
            "status": "FINISHED",
            "parent": "toy",
            "params": {"rate": str(0.1 * run), "kind": "sgd"},
            "artifacts": ["config.yaml", "series.parquet"],
            "metrics": {
                name: [(step, run + 0.5 * step, 1_000_000 + run + step) for step in range(steps)]
                for name in METRICS
            },
            "tags": {"metalab.number": str(run), "metalab.step": str(steps - 1)},
        }
        for run in range(runs)
    }
    return {"toy": sweep, **points}


def contents(root: Path, experiment: str = "toy") -> dict[str, Any]:
    """An experiment's runs by name: metric points, params, files, and the tags that ``record`` gives them.

    Raises:
        AssertionError: two runs have one name.
    """
    client = client_of(root)
    runs = list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(runs), sorted(names.values())
    return {run.info.run_name: _content(client, run, names) for run in runs}


def _content(client: Any, run: Any, names: dict[str, str]) -> dict[str, Any]:
    info, data = run.info, run.data
    histories = {name: client.get_metric_history(info.run_id, name) for name in data.metrics}
    metrics = {
        name: sorted((point.step, point.value, point.timestamp) for point in history)
        for name, history in histories.items()
    }
    parent = data.tags.get("mlflow.parentRunId")
    return {
        "status": info.status,
        "parent": None if parent is None else names[parent],
        "params": dict(data.params),
        "artifacts": sorted(file.path for file in client.list_artifacts(info.run_id)),
        "metrics": metrics,
        "tags": {key: value for key, value in data.tags.items() if key in TAGS},
    }


def lines(path: Path) -> Iterator[str]:
    """The lines of a file, none if it is missing."""
    yield from path.read_text().splitlines() if path.exists() else ()

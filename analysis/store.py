"""A sweep's runs in its MLflow store, and their files: below the root, or fetched from a server.

Everything is read, nothing is written here. mlflow is imported when a store is opened, for its import takes
more than a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from metalab.errors import MetalabError, nearest
from metalab.tracking import address, check_address, client_of

__all__ = ["StoredSweep", "open_store", "opened_sweep", "require_store"]

TAG = "metalab."
_FILES = ("series.parquet", "evaluation.parquet", "settings.parquet", "sweep.yaml", "hardware.json")
_FETCHES = 8  # at once
_SQLITE = "sqlite:///"


@dataclasses.dataclass(frozen=True)
class StoredSweep:
    """A sweep in the store.

    Attributes:
        root: folder of the store and of the sweeps' files.
        client: of the store.
        parent: the sweep's own run.
        children: points by number, then baselines; of what was run again the newest run.
        superseded: runs of points that were run again, left aside.
        folder: of the parent's artifacts; None: they are on a server.
        folders: run id to a folder with its files; those from a server are copies.
    """

    root: Path
    client: Any
    parent: Any
    children: Sequence[Any]
    superseded: int
    folder: Path | None
    folders: dict[str, Path]


def require_store(root: Path) -> None:
    """Refuses a root without a store: a client would silently make an empty one.

    Raises:
        MetalabError: there is none, or its server does not answer.
    """
    where = address(Path(root))
    check_address(where)
    file = Path(where.removeprefix(_SQLITE))
    if where.startswith(_SQLITE) and not file.is_file():
        place = f"in {root}" if file == Path(root).absolute() / "mlflow.db" else f"at {where}"
        raise MetalabError(
            f"there is no MLflow store {place}: run `metalab sweep FILE` first, or name the folder that "
            "holds it"
        )


def open_store(root: Path) -> Any:
    """An ``MlflowClient`` on the store of a root.

    Raises:
        MetalabError: there is no store.
    """
    require_store(root)
    return client_of(Path(root))


@contextlib.contextmanager
def opened_sweep(root: Path, sweep: str) -> Iterator[StoredSweep]:
    """One sweep of a store, its files at hand as long as the block runs.

    Args:
        root: folder of the store.
        sweep: name of the sweep.

    Raises:
        MetalabError: there is no store, or it has no such sweep.
    """
    client = open_store(root)
    parent, children, superseded = _find_runs(client, root, sweep)
    with tempfile.TemporaryDirectory(prefix="metalab-") as name:
        local = {run.info.run_id: _local_folder(Path(root), run) for run in [parent, *children]}
        folders = _fetched(client, local, Path(name))
        folder = local[parent.info.run_id]
        yield StoredSweep(Path(root), client, parent, children, superseded, folder, folders)


def _fetched(client: Any, local: dict[str, Path | None], into: Path) -> dict[str, Path]:
    """Where the files of every run lie; those that are on a server are brought below ``into``."""

    def fetch(run_id: str) -> Path:
        folder = into / run_id
        folder.mkdir()
        known = {item.path for item in client.list_artifacts(run_id)}
        for file in known.intersection(_FILES):
            client.download_artifacts(run_id, file, str(folder))
        return folder

    remote = [run_id for run_id, folder in local.items() if folder is None]
    with ThreadPoolExecutor(_FETCHES) as pool:
        copies = dict(zip(remote, pool.map(fetch, remote), strict=True))
    return copies | {run_id: folder for run_id, folder in local.items() if folder is not None}


def _local_folder(root: Path, run: Any) -> Path | None:
    """A run's artifacts; below the root, also when the store was copied and notes another place."""
    parsed = urlparse(run.info.artifact_uri)
    if parsed.scheme not in ("", "file"):
        return None
    noted = Path(unquote(parsed.path))
    if noted.is_relative_to(root.resolve()):
        return noted
    below = sorted((root / "artifacts").glob(f"*/{run.info.run_id}/artifacts"))
    return below[0] if below else noted


def _find_runs(client: Any, root: Path, sweep: str) -> tuple[Any, list[Any], int]:
    """The newest parent run of the sweep, its children in order, and how many were superseded."""
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        names = [found.name for found in client.search_experiments() if found.name != "Default"]
        raise MetalabError(f"no sweep named {sweep!r} in the MLflow store of {root}: {nearest(sweep, names)}")
    found = list(_pages(client, experiment.experiment_id))
    parents = [run for run in found if run.data.tags.get(TAG + "kind") == "sweep"]
    if not parents:
        raise MetalabError(
            f"experiment {sweep!r} in {root} has no run of kind `sweep`: nothing was run in it"
        )
    # A point run alone is no sweep: its parent counts only where there is nothing else.
    whole = [run for run in parents if run.data.tags.get(TAG + "single") != "true"]
    parent = max(whole or parents, key=lambda run: run.info.start_time or 0)
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    valid = [run for run in children if run.data.tags.get(TAG + "status") != "SUPERSEDED"]
    newest = {_identity(run): run for run in sorted(valid, key=lambda run: run.info.start_time or 0)}
    return parent, sorted(newest.values(), key=_order), len(children) - len(valid)


def _pages(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _identity(run: Any) -> tuple[str, str]:
    """What a run is of: a point's number or a baseline's name."""
    tags = run.data.tags
    return tags.get(TAG + "kind", ""), tags.get(TAG + "name") or run.info.run_id


def _order(run: Any) -> tuple[bool, int, str]:
    tags = run.data.tags
    number = int(tags.get(TAG + "number", 0))
    return tags.get(TAG + "kind") != "point", number, tags.get(TAG + "name", "")

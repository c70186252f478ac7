"""A tracking server in place of the SQLite file: the same content, and a sweep that survives its absence."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metalab.errors import MetalabError
from metalab.outbox import Outbox
from metalab.spool import acknowledged
from metalab.tracking import Store, address, check_address, client_of
from tests.outbox_toys import contents, expected, record

STARTUP_SECONDS = 120.0


class Door:
    """A way to a server that can be shut, as if the server had gone, and opened again at the same port."""

    def __init__(self, port: int) -> None:
        self._inner = port
        self._socket: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.port = 0
        self.open()

    def open(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def shut(self) -> None:
        assert self._socket is not None
        # Without the shutdown, the thread that waits in `accept` would still take one more.
        self._socket.shutdown(socket.SHUT_RDWR)
        for one in (self._socket, *self._open):
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                outer, _ = listener.accept()
            except OSError:  # shut
                return
            inner = socket.create_connection(("127.0.0.1", self._inner))
            self._open += [outer, inner]
            for source, target in ((outer, inner), (inner, outer)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while block := source.recv(1 << 16):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # shut
        return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Server:
    """An MLflow server that keeps artifacts for its clients."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Returns when it answers."""
        limit = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < limit, self.log.read_text()
                time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    """A server that is starting, which takes a while."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(empty_database, folder / "mlflow.db")
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    # It runs jobs of its own in further processes, which no test needs.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Server(port, process, folder / "log")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def door(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The way to the server that the environment names."""
    server.wait()
    made = Door(server.port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.port}")
    yield made
    made.shut()


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    """A name of the test's own: all share one server."""
    return request.node.name


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_server_holds_what_a_file_would(
    experiment: str, tmp_path: Path, empty_database: Path, request: pytest.FixtureRequest
) -> None:
    def recorded(root: Path) -> dict[str, Any]:
        outbox = Outbox(root / "toy", lambda: Store(root, experiment), 0, print)
        record(outbox, root / "toy", runs=3, steps=50)
        assert outbox.drain(60)
        outbox.stop()
        return contents(root, experiment)

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    in_file = recorded(tmp_path)  # while the server starts
    request.getfixturevalue("door")
    assert recorded(tmp_path / "served") == in_file == expected(runs=3, steps=50)


def test_the_server_decides_where_artifacts_lie(door: Door, experiment: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    store = Store(root, experiment)
    run = store.open("point", "d", "one")
    (tmp_path / "x.txt").write_text("from the server")
    store.artifact(run.run_id, tmp_path / "x.txt", "notes")
    found = store.client.get_run(run.run_id).info.artifact_uri
    assert found.startswith("mlflow-artifacts:/")
    local = client_of(root).download_artifacts(run.run_id, "notes/x.txt", str(tmp_path))
    assert Path(local).read_text() == "from the server"
    assert list(root.iterdir()) == []


def test_while_the_server_is_away_logging_is_immediate_and_nothing_is_lost(
    door: Door, experiment: str, tmp_path: Path
) -> None:
    said: list[str] = []
    outbox = Outbox(tmp_path, lambda: Store(tmp_path, experiment), 0, said.append)
    outbox.open("before", "point", "before")
    outbox.release(outbox.flush())
    assert outbox.drain(60)
    door.shut()
    outbox.log("before", [("x", 0, 0.0)])
    outbox.release(outbox.flush())
    limit = time.monotonic() + 30
    while not said:
        assert time.monotonic() < limit
        time.sleep(0.01)
    start = time.perf_counter()
    for step in range(1, 200):
        outbox.log("before", [("x", step, float(step))])
    position = record(outbox, tmp_path)
    assert time.perf_counter() - start < 2.0  # of 210 operations, and the server stays away
    assert not outbox.drain(0.5)
    door.open()
    assert outbox.drain(60)
    outbox.stop()
    assert acknowledged(tmp_path) == position and outbox.waiting == 0
    assert [line.split(" (")[0].split(";")[0] for line in said] == [
        "MLflow does not take the sweep's records",
        "MLflow takes the sweep's records again",
    ]
    found = contents(tmp_path, experiment)
    assert [value for _, value, _ in found.pop("before")["metrics"]["x"]] == [float(x) for x in range(200)]
    assert found == expected()


def test_what_was_not_delivered_is_by_the_next_process(door: Door, experiment: str, tmp_path: Path) -> None:
    door.shut()
    outbox = Outbox(tmp_path, lambda: Store(tmp_path, experiment), 0, print)
    position = record(outbox, tmp_path)
    assert not outbox.drain(1.0)
    start = time.monotonic()
    outbox.stop()
    assert time.monotonic() - start < 5
    door.open()
    outbox = Outbox(tmp_path, lambda: Store(tmp_path, experiment), position, print)
    assert outbox.drain(60)
    outbox.stop()
    assert contents(tmp_path, experiment) == expected()


def test_the_server_s_refusal_of_a_point_spares_the_others(
    door: Door, experiment: str, tmp_path: Path
) -> None:
    said: list[str] = []
    outbox = Outbox(tmp_path, lambda: Store(tmp_path, experiment), 0, said.append)
    outbox.open("a", "point", "a", params={"p": 1})
    outbox.log("a", [("x", 0, 1.0), ("no[name]", 0, 1.0), ("y", 0, 2.0)])
    outbox.release(outbox.flush())
    assert outbox.drain(60)
    outbox.stop()
    assert {
        name: value for name, ((_, value, _),) in contents(tmp_path, experiment)["a"]["metrics"].items()
    } == {
        "x": 1.0,
        "y": 2.0,
    }
    assert len(said) == 1 and "MLflow refuses a log of run a" in said[0] and "no[name]" in said[0]


class TestAddress:
    def test_without_a_server_it_is_a_file_under_the_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert address(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
        check_address(address(tmp_path))

    def test_a_server_that_answers_is_accepted(self, door: Door, tmp_path: Path) -> None:
        assert address(tmp_path) == f"http://127.0.0.1:{door.port}"
        check_address(address(tmp_path) + "/")
        check_address(f"http://me:secret@127.0.0.1:{door.port}")

    def test_a_server_that_is_away_is_named_with_the_remedy(self) -> None:
        place = f"127.0.0.1:{free_port()}"
        words = rf"MLFLOW_TRACKING_URI: no MLflow server at http://me:\*\*\*@{place} \(.*refused\); start it"
        with pytest.raises(MetalabError, match=words):
            check_address(f"http://me:secret@{place}")

    def test_a_server_of_something_else_is_named(self, door: Door) -> None:
        with pytest.raises(
            MetalabError, match=r"no MLflow server at .*/elsewhere \(it answers 404 to /health"
        ):
            check_address(f"http://127.0.0.1:{door.port}/elsewhere")

    def test_what_is_no_address_is_named(self) -> None:
        with pytest.raises(MetalabError, match="no MLflow server at http://host:port"):
            check_address("http://host:port")


def test_a_run_that_the_server_does_not_have_is_named(door: Door, tmp_path: Path) -> None:
    from metalab.sweep.meta_test import evaluate_run

    place = f"http://127.0.0.1:{door.port}"
    with pytest.raises(MetalabError, match=f"there is no run {'0' * 32} in {place}"):
        evaluate_run("0" * 32, ["any"], tmp_path)
    door.shut()
    with pytest.raises(MetalabError, match=f"no MLflow server at {place}"):
        evaluate_run("0" * 32, ["any"], tmp_path)
    door.open()

"""The outbox: nothing uncommitted is delivered, nothing is lost or doubled, and the engine never waits."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalab import outbox as module
from metalab.delivery import passing, planned
from metalab.errors import MetalabError
from metalab.outbox import Outbox
from metalab.spool import REJECTED, Operation, Spool, acknowledged
from metalab.tracking import BATCH, Store
from tests.outbox_toys import METRICS, FakeStore, MortalClient, contents, deliver, expected, lines, record

Begin = Callable[..., Outbox]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def begin(
    tmp_path: Path, store: FakeStore, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Begin]:
    """Makes outboxes on the fake store, which try again at once; all are stopped at the end."""
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(module, "_LONGEST_WAIT", 0.02)
    made: list[Outbox] = []

    def make(position: int = 0, make_store: Callable[[], FakeStore] = lambda: store) -> Outbox:
        made.append(Outbox(tmp_path, lambda: cast(Store, make_store()), position, said.append))
        return made[-1]

    yield make
    for outbox in made:
        outbox.stop()


def send(outbox: Outbox) -> int:
    position = outbox.flush()
    outbox.release(position)
    assert outbox.drain(10)
    return position


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


class TestSpool:
    def append(self, spool: Spool, *names: str) -> int:
        for name in names:
            spool.append(Operation("tag", name, {"tags": {}}))
        return spool.flush()

    def runs(self, spool: Spool, start: int, end: int) -> list[str]:
        return [one.run for one, _ in spool.read(start, end, 1 << 20)]

    def test_what_is_flushed_is_there_and_no_more(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 0)
        middle = self.append(spool, "a", "b")
        end = self.append(spool, "c")
        spool.append(Operation("tag", "unflushed", {}))
        assert spool.path.stat().st_size == end
        assert self.runs(spool, 0, end) == ["a", "b", "c"]
        assert self.runs(spool, 0, middle) == ["a", "b"]
        assert self.runs(spool, middle, end) == ["c"]
        assert (spool.count(0, end), spool.count(middle, end)) == (3, 1)

    def test_reading_a_part_ends_at_an_operation(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 0)
        end = self.append(spool, *"abc")
        found = list(spool.read(0, end, 1))
        assert [one.run for one, _ in found] == ["a"]
        assert self.runs(spool, found[-1][1], end) == ["b", "c"]

    def test_opening_cuts_behind_the_position(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 0)
        middle = self.append(spool, "a")
        self.append(spool, "b", "c")
        again = Spool(tmp_path, middle)
        end = self.append(again, "d")
        assert self.runs(again, 0, end) == ["a", "d"]

    def test_position_zero_forgets_everything(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 0)
        spool.acknowledge(self.append(spool, "a"))
        (tmp_path / REJECTED).write_text("x")
        again = Spool(tmp_path, 0)
        assert (again.delivered, again.path.stat().st_size) == (0, 0)
        assert not (tmp_path / REJECTED).exists()

    @pytest.mark.parametrize("content", ["", "x", "-1"])
    def test_an_acknowledgement_that_is_none_counts_as_nothing(self, tmp_path: Path, content: str) -> None:
        end = self.append(Spool(tmp_path, 0), "a")
        (tmp_path / "outbox.ack").write_text(content)
        assert Spool(tmp_path, end).delivered == 0

    def test_no_more_is_delivered_than_is_kept(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 0)
        middle = self.append(spool, "a")
        end = self.append(spool, "b")
        spool.acknowledge(end)
        assert Spool(tmp_path, end).delivered == end
        assert Spool(tmp_path, middle).delivered == middle

    def test_a_spool_shorter_than_the_commit_is_an_error(self, tmp_path: Path) -> None:
        end = self.append(Spool(tmp_path, 0), "a")
        with pytest.raises(MetalabError, match=f"outbox.jsonl: {end} bytes, .* counts {end + 1}: .* --fresh"):
            Spool(tmp_path, end + 1)

    def test_numbers_of_numpy_are_numbers(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 0)
        rows = [("a", np.int64(3), np.float32(0.5)), ("b", 1, math.nan), ("c", 2, -math.inf)]
        spool.append(Operation("log", "r", {"rows": rows}))
        ((operation, _),) = spool.read(0, spool.flush(), 1)
        assert operation.body["rows"][0] == ["a", 3, 0.5]
        assert math.isnan(operation.body["rows"][1][2])
        assert operation.body["rows"][2][2] == -math.inf

    def test_what_is_no_json_is_refused_where_it_is_given(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="is a PosixPath, which JSON does not know"):
            Spool(tmp_path, 0).append(Operation("log", "r", {"rows": [("a", 0, Path("b"))]}))


def log(run: str, *values: float) -> Operation:
    return Operation("log", run, {"rows": [["x", 0, value] for value in values]})


def tag(run: str, **tags: str) -> Operation:
    return Operation("tag", run, {"tags": tags})


class TestPlanned:
    def test_points_and_tags_of_a_run_are_gathered(self) -> None:
        given_ = [log("a", 1), tag("a", t="1"), log("b", 2), log("a", 3), tag("a", t="2", u="3")]
        assert planned(given_) == [log("a", 1, 3), tag("a", t="2", u="3"), log("b", 2)]

    def test_an_end_stays_between_what_came_before_and_after(self) -> None:
        close = Operation("close", "a", {"status": "KILLED"})
        again = Operation("open", "a", {"kind": "point"})
        given_ = [log("a", 1), close, again, log("a", 2)]
        assert planned(given_) == given_

    def test_batches_are_full_and_not_overfull(self) -> None:
        made = planned([log("a", *range(600)), log("a", *range(600)), log("a", *range(1000))])
        assert [len(one.body["rows"]) for one in made] == [BATCH, BATCH, 200]

    operation = st.one_of(
        st.builds(lambda run, values: log(run, *values), st.sampled_from("ab"), st.lists(st.integers(0, 9))),
        st.builds(lambda run, value: tag(run, t=value), st.sampled_from("ab"), st.sampled_from("xyz")),
        st.builds(lambda run, at: Operation("close", run, {"at": at}), st.sampled_from("ab"), st.integers()),
    )

    @given(st.lists(operation, max_size=20))
    def test_every_run_ends_up_the_same(self, operations: list[Operation]) -> None:
        def outcome(given_: Sequence[Operation], run: str) -> list[Any]:
            """Points, and the tag's value, at each close and at the end."""
            seen: list[Any] = []
            points, value = [], None
            for one in [*given_, Operation("close", run, {})]:
                if one.run == run and one.name == "close":
                    seen.append((one.body, list(points), value))
                elif one.run == run:
                    points += one.body.get("rows", [])
                    value = one.body.get("tags", {}).get("t", value)
            return seen

        for run in "ab":
            assert outcome(planned(operations), run) == outcome(operations, run)


def test_errors_that_pass_are_told_from_those_that_last() -> None:
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
    from requests import ConnectionError as Refused
    from requests import HTTPError, Response

    def http(status: int) -> HTTPError:
        response = Response()
        response.status_code = status
        return HTTPError(str(status), response=response)

    assert passing(MlflowException("API request failed with exception: refused"))
    assert passing(MlflowException("database is locked", TEMPORARILY_UNAVAILABLE))
    assert passing(RestException({"error_code": "PERMISSION_DENIED", "message": "log in again"}))
    assert passing(RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slower"}))
    assert passing(Refused("refused")) and passing(http(503)) and passing(TimeoutError())
    assert passing(OSError(28, "No space left on device"))
    assert not passing(MlflowException("bad name", INVALID_PARAMETER_VALUE))
    assert not passing(RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}))
    assert not passing(http(400)) and not passing(FileNotFoundError(2, "gone")) and not passing(KeyError("x"))


class TestOutbox:
    def test_only_what_is_released_is_delivered(self, begin: Begin, store: FakeStore, tmp_path: Path) -> None:
        outbox = begin()
        outbox.open("a", "point", "one")
        position = outbox.flush()
        outbox.log("a", [("x", 0, 1.0)])
        outbox.flush()
        outbox.release(position)
        assert outbox.drain(10)
        assert (store.points, outbox.waiting, acknowledged(tmp_path)) == ({"a": []}, 1, position)
        send(outbox)
        assert (store.points, outbox.waiting) == ({"a": [("x", 0, 1.0)]}, 0)

    def test_a_small_sweep_arrives(self, begin: Begin, store: FakeStore, tmp_path: Path) -> None:
        outbox = begin()
        record(outbox, tmp_path)
        assert outbox.drain(10)
        assert store.points["point1"] == [
            (name, step, 1 + 0.5 * step) for step in range(3) for name in METRICS
        ]
        assert store.param["point1"] == {"rate": "0.1", "kind": "sgd"}
        assert store.tags["point1"]["status"] == "FINISHED True"
        assert {run: sorted(names) for run, names in store.files.items()} == {
            "point0": ["config.yaml", "series.parquet"],
            "point1": ["config.yaml", "series.parquet"],
            "sweep": ["sweep.yaml"],
        }
        # What was to be removed is; what was not, stays.
        assert list((tmp_path / "records").iterdir()) == [] and (tmp_path / "sweep.yaml").exists()

    def test_the_next_process_goes_on_behind_what_is_delivered(self, begin: Begin, store: FakeStore) -> None:
        first = begin()
        first.open("a", "point", "one")
        send(first)
        first.log("a", [("x", 0, 1.0)])
        position = first.flush()  # committed, and killed before it could be delivered
        first.log("a", [("x", 1, 9.0)])
        first.flush()  # not committed
        first.stop()
        store.calls.clear()
        there = threading.Event()

        def make_store() -> FakeStore:
            assert there.wait(10)
            return store

        second = begin(position, make_store)
        assert second.waiting == 1
        there.set()
        second.log("a", [("x", 1, 2.0)])
        send(second)
        assert store.points["a"] == [("x", 0, 1.0), ("x", 1, 2.0)]
        assert ("open", "a") not in store.calls

    def test_while_the_store_is_away_everything_waits(
        self, begin: Begin, store: FakeStore, said: list[str], tmp_path: Path
    ) -> None:
        away = [True]

        def make_store() -> FakeStore:
            if away[0]:
                raise ConnectionError("refused by http://me:secret@host")
            return store

        outbox = begin(0, make_store)
        position = record(outbox, tmp_path)
        until(lambda: said)
        assert not outbox.drain(0.2)
        assert said == [
            "MLflow does not take the sweep's records (ConnectionError: refused by http://me:***@host); the "
            f"sweep goes on, {tmp_path / 'outbox.jsonl'} keeps them, and delivery is tried again and again"
        ]
        num_waiting = outbox.waiting
        away[0] = False
        assert outbox.drain(10)
        assert said[1:] == [f"MLflow takes the sweep's records again; {num_waiting} operations wait for it"]
        assert len(store.points["point0"]) == 6 and acknowledged(tmp_path) == position

    def test_a_failing_call_is_repeated_as_a_whole(self, begin: Begin, tmp_path: Path) -> None:
        """Every kind of call fails once for every run: nothing is missing, nothing doubled."""
        failed: set[tuple[str, ...]] = set()

        def trouble(*call: str) -> Exception | None:
            if call in failed:
                return None
            failed.add(call)
            return TimeoutError("slow")

        flaky = FakeStore(trouble)
        outbox = begin(0, lambda: flaky)
        record(outbox, tmp_path)
        assert outbox.drain(20)
        assert flaky.points["point0"] == [(name, step, 0.5 * step) for step in range(3) for name in METRICS]
        assert sorted(flaky.files["point0"]) == ["config.yaml", "series.parquet"]
        assert len(failed) > 10

    def test_stopping_is_prompt_while_the_store_is_away(
        self, begin: Begin, store: FakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(module, "_FIRST_WAIT", 30.0)

        def refuse(call: str, run: str) -> Exception:
            asked.append(call)
            return ConnectionError()

        asked: list[str] = []
        outbox = begin(0, lambda: FakeStore(refuse))
        position = record(outbox, tmp_path)
        until(lambda: asked)
        start = time.monotonic()
        outbox.stop()
        assert time.monotonic() - start < 2
        assert not outbox.drain(0.1)
        assert begin(position).drain(10)
        assert len(store.points["point0"]) == 6

    def test_a_hanging_store_is_abandoned(self, begin: Begin, store: FakeStore, tmp_path: Path) -> None:
        answer, asked = threading.Event(), threading.Event()

        def hang(call: str, run: str) -> None:
            asked.set()
            assert answer.wait(10)

        outbox = begin(0, lambda: FakeStore(hang))
        outbox.open("a", "point", "one")
        position = outbox.flush()
        outbox.release(position)
        assert asked.wait(10)
        outbox.stop(timeout=0.01)
        answer.set()
        outbox._thread.join(10)
        assert not (tmp_path / "outbox.ack").exists()  # the next outbox may be at work by then
        assert begin(position).drain(10)
        assert store.calls == [("open", "a")]

    def test_what_is_refused_is_written_aside_and_delivery_goes_on(
        self, begin: Begin, store: FakeStore, said: list[str], tmp_path: Path
    ) -> None:
        outbox = begin()
        outbox.open("a", "point", "one", params={"p": 1, "q": 1})
        outbox.open("a", "point", "one", params={"p": 2, "q": 1, "r": 1})
        rows: list[Any] = [("x", step, float(step)) for step in range(100)]
        rows[40] = rows[60] = ("x", 40, "no number")
        outbox.log("a", rows)
        outbox.log("never opened", [("x", 0, 1.0)])
        outbox.artifact("a", tmp_path / "missing.txt")
        outbox.tag("a", last="1")
        send(outbox)
        assert store.param["a"] == {"p": "1", "q": "1", "r": "1"}
        assert [step for _, step, _ in store.points["a"]] == [*range(40), *range(41, 60), *range(61, 100)]
        assert store.tags["a"]["last"] == "1"
        aside = [json.loads(line) for line in lines(tmp_path / REJECTED)]
        assert [one["operation"] for one in aside] == [
            ["params", "a", {"p": "2"}],
            ["log", "a", {"rows": [["x", 40, "no number"]]}],
            ["log", "a", {"rows": [["x", 40, "no number"]]}],
            ["artifact", "a", {"path": "missing.txt", "folder": None, "remove": False}],
            ["log", "never opened", {"rows": [["x", 0, 1.0]]}],
        ]
        assert aside[0]["error"] == "ValueError: a param cannot change"
        # The second bad point is not said again: it is of the same kind.
        expected_words = ["params of run a", "log of run a", "artifact of run a", "log of run never opened"]
        assert len(said) == len(expected_words)
        assert all(words in line for words, line in zip(expected_words, said, strict=True))

    def test_an_artifact_delivered_by_a_killed_process_is_not_missed(
        self, begin: Begin, said: list[str], tmp_path: Path
    ) -> None:
        outbox = begin()
        outbox.open("a", "point", "one")
        outbox.artifact("a", tmp_path / "gone", remove=True)
        send(outbox)
        assert said == []

    def test_a_moved_folder_still_delivers_its_files(
        self, begin: Begin, store: FakeStore, tmp_path: Path
    ) -> None:
        first, moved = tmp_path / "first", tmp_path / "moved"
        outbox = Outbox(first, lambda: cast(Store, store), 0, print)
        outbox.open("a", "point", "one")
        (first / "x.txt").write_text("x")
        outbox.artifact("a", first / "x.txt")
        position = outbox.flush()
        outbox.stop()
        first.rename(moved)
        again = Outbox(moved, lambda: cast(Store, store), position, print)
        assert again.drain(10)
        again.stop()
        assert store.files == {"a": ["x.txt"]}

    def test_a_broken_spool_ends_recording_with_a_word(
        self, begin: Begin, said: list[str], tmp_path: Path
    ) -> None:
        outbox = begin()
        outbox.open("a", "point", "one")
        position = outbox.flush()
        (tmp_path / "outbox.jsonl").write_bytes(b"x" * position)
        outbox.release(position)
        assert not outbox.drain(10)
        assert len(said) == 1 and "recording in MLflow has ended (JSONDecodeError" in said[0]

    def test_an_installation_that_is_not_whole_is_not_waited_for(
        self, said: list[str], tmp_path: Path
    ) -> None:
        def make_store() -> Store:
            raise ModuleNotFoundError("No module named 'six'")

        outbox = Outbox(tmp_path, make_store, 0, said.append)
        outbox.open("a", "point", "one")
        outbox.release(outbox.flush())
        assert not outbox.drain(10)
        assert len(said) == 1 and "recording in MLflow has ended (ModuleNotFoundError" in said[0]

    def test_the_engine_s_thread_loads_no_mlflow(self, tmp_path: Path) -> None:
        code = (
            "import sys, pathlib; from metalab.outbox import Outbox\n"
            f"outbox = Outbox(pathlib.Path({str(tmp_path)!r}), None, 0, print)\n"
            "outbox.open('a', 'point', 'one'); outbox.log('a', [('x', 0, 1.0)]); outbox.flush()\n"
            "outbox.stop(); assert 'mlflow' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestSqlite:
    @pytest.fixture
    def root(self, tmp_path: Path, empty_database: Path) -> Path:
        shutil.copy(empty_database, tmp_path / "mlflow.db")
        return tmp_path

    def committed(self, root: Path, **size: int) -> int:
        """The position of a small sweep of which nothing is delivered: the store was away."""

        def away() -> Store:
            raise ConnectionError

        outbox = Outbox(root / "toy", away, 0, lambda line: None)
        position = record(outbox, root / "toy", **size)
        outbox.stop()
        return position

    def test_delivering_again_changes_nothing(self, root: Path) -> None:
        position = self.committed(root)
        deliver(root, position)
        (root / "toy" / "outbox.ack").unlink()
        deliver(root, position)
        assert contents(root) == expected()

    def test_ended_before_and_after_every_call(self, root: Path) -> None:
        position, moments = self.committed(root, runs=1), 0
        store = Store(root, "toy")
        client = store.client
        delivered = False
        while not delivered:
            store.client = MortalClient(client, moments)
            outbox = Outbox(root / "toy", lambda: store, position, print)
            delivered = outbox.drain(60)
            outbox.stop()
            moments += 1
        # find, create, params, copy, tag, end: of two runs, and each call has two moments to end at.
        assert moments > 24
        assert contents(root) == expected(runs=1)

    def test_killed_at_any_time(self, root: Path) -> None:
        size = {"runs": 3, "steps": 400}
        position = self.committed(root, **size)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"])
        reached = 0
        for milliseconds in (0, 5, 10, 20):
            process = context.Process(target=deliver, args=(root, position, 5000))
            process.start()
            before = reached
            while reached == before:  # it has got somewhere, and is at work on the next part
                time.sleep(0.002)
                reached = acknowledged(root / "toy")
            time.sleep(milliseconds / 1000)
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        deliver(root, position)
        assert contents(root) == expected(**size)

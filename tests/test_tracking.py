import math
import shutil
from pathlib import Path

import pytest

from metalab.errors import MetalabError
from metalab.tracking import Store, client_of, flatten, redacted, safe_name


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Store:
    root = tmp_path_factory.mktemp("store")
    shutil.copy(empty_database, root / "mlflow.db")
    return Store(root, "toy")


def test_a_run_is_found_again_by_its_digest(store: Store) -> None:
    first = store.open("point", "d1", "one", params={"a.b": 1}, tags={"metalab.number": 3})
    second = store.open("point", "d1", "one", params={"a.b": 1})
    other = store.open("baseline", "d0", "one")
    assert first.run_id == second.run_id != other.run_id
    assert first.start_ms == second.start_ms
    assert second.tags["metalab.number"] == "3"
    assert store.find("d2") is None


def test_logging_twice_stores_once(store: Store) -> None:
    run = store.open("point", "twice", "twice")
    rows = [("train/loss", step, 1.0 / (step + 1)) for step in range(1500)]  # more than one batch
    store.log(run, rows)
    store.log(store.open("point", "twice", "twice"), rows)
    history = store.client.get_metric_history(run.run_id, "train/loss")
    assert [point.step for point in sorted(history, key=lambda p: p.step)] == list(range(1500))


def test_infinities_are_stored_as_nan(store: Store) -> None:
    run = store.open("point", "inf", "inf")
    store.log(run, [("a", 0, math.inf), ("b", 0, -math.inf), ("c", 0, math.nan), ("d", 0, 2.0)])
    metrics = store.client.get_run(run.run_id).data.metrics
    assert all(math.isnan(metrics[name]) for name in "abc")
    assert metrics["d"] == 2.0


def test_statuses_are_what_they_are_set_to(store: Store) -> None:
    for status in ("FINISHED", "FAILED", "KILLED"):
        run = store.open("point", status, status)
        assert store.client.get_run(run.run_id).info.status == "RUNNING"
        store.close(run.run_id, status)
        found = store.find(status)
        assert found is not None
        assert found.status == found.tags["metalab.status"] == status


def test_a_run_begins_and_ends_when_it_is_said_to(store: Store) -> None:
    run = store.open("point", "times", "times", start_ms=1000)
    assert run.start_ms == store.open("point", "times", "times", start_ms=2000).start_ms == 1000
    store.log(run, [("x", 5, 1.0)])
    (point,) = store.client.get_metric_history(run.run_id, "x")
    assert point.timestamp == 1005
    store.close(run.run_id, "FINISHED", end_ms=3000)
    assert store.client.get_run(run.run_id).info.end_time == 3000


def test_a_deleted_experiment_is_named_with_the_remedy(store: Store) -> None:
    other = Store(store.root, "deleted")
    store.client.delete_experiment(other.experiment_id)
    with pytest.raises(MetalabError, match=rf"'deleted' was deleted .* restore -x {other.experiment_id}`"):
        Store(store.root, "deleted")


def test_another_file_than_the_root_s_is_used_if_it_is_named(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    Store(tmp_path / "root", "named")
    found = client_of(tmp_path).get_experiment_by_name("named")
    assert found is not None
    assert found.artifact_location == (tmp_path / "root" / "artifacts" / "named").as_uri()
    assert not (tmp_path / "root" / "mlflow.db").exists()


def test_children_are_forgotten_with_their_parent(store: Store) -> None:
    parent = store.open("sweep", "p", "p")
    store.open("point", "child", "child", parent=parent.run_id)
    store.forget(parent.run_id)
    assert store.find("p") is None
    assert store.find("child") is None


def test_artifacts_lie_under_the_root(store: Store, tmp_path: Path) -> None:
    run = store.open("point", "artifact", "artifact")
    (tmp_path / "x.txt").write_text("x")
    store.artifact(run.run_id, tmp_path / "x.txt")
    assert [path.name for path in store.root.glob("artifacts/toy/*/artifacts/*")] == ["x.txt"]


def test_flatten_joins_keys_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_passwords_are_not_stored() -> None:
    assert redacted("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert redacted("sqlite:///a/b.db") == "sqlite:///a/b.db"


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(MetalabError, match="name: got"):
        safe_name(name)

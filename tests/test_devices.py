import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from metalab import devices


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    keep = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**keep, **environment}, check=False
    )


CONFIGURE = (
    "import jax; from metalab.devices import configure; configure({}); print(jax.local_device_count())"
)


def test_configure_makes_the_devices_that_were_asked_for(tmp_path) -> None:
    done = run(CONFIGURE.format(3), METALAB_CACHE_DIR=str(tmp_path))
    assert done.stdout.split() == ["3"], done.stderr


def test_configure_respects_the_users_count(tmp_path) -> None:
    done = run(
        CONFIGURE.format(""),
        METALAB_CACHE_DIR=str(tmp_path),
        XLA_FLAGS="--xla_force_host_platform_device_count=5",
    )
    assert done.stdout.split() == ["5"], done.stderr


def test_configure_after_jax_has_started_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    before = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setenv("METALAB_CACHE_DIR", str(tmp_path))
    have = jax.local_device_count()
    try:
        with pytest.raises(
            RuntimeError, match=rf"started with {have} CPU device\(s\), {have + 1} were wanted"
        ):
            devices.configure(have + 1)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="number of devices: got 0"):
        devices.configure(0)


@pytest.mark.parametrize(("lanes", "count", "width"), [(1, 2, 2), (4, 2, 4), (10, 8, 16), (3, 1, 3)])
def test_lanes_are_padded_to_whole_devices(lanes: int, count: int, width: int) -> None:
    assert devices.pad_lanes(lanes, count) == width


def test_padding_repeats_the_last_lane_also_of_keys() -> None:
    tree = {"x": jnp.arange(3), "key": jax.random.split(jax.random.key(0), 3)}
    wide = devices.padded(tree, 5)
    assert wide["x"].tolist() == [0, 1, 2, 2, 2]
    assert (jax.random.key_data(wide["key"][4]) == jax.random.key_data(tree["key"][2])).all()


def test_lanes_lie_on_all_devices() -> None:
    mesh = devices.lane_mesh()
    placed = devices.place(jnp.zeros((2 * mesh.size, 3)), mesh)
    assert len(placed.sharding.device_set) == jax.local_device_count()


@pytest.mark.parametrize(("version", "count"), [((0, 10, 2), 3), ((0, 11, 2), 1)])
def test_several_cpu_devices_are_the_default_only_where_the_compiler_bears_them(monkeypatch, version, count):
    monkeypatch.setattr(devices.jax, "__version_info__", version)
    monkeypatch.setattr(devices, "usable_cores", lambda: 3)
    assert devices.default_devices() == count

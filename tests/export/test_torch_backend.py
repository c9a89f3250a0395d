from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the reference is not run")

from export.backends.opening import open_backend  # noqa: E402
from export.backends.torch_cpu import open_cpu  # noqa: E402
from export.bundle import DecoderBundle, write_bundle  # noqa: E402
from export.errors import BackendError, BundleError  # noqa: E402
from export.parity import largest_error  # noqa: E402
from streams.messages import TokenWindow  # noqa: E402
from tests.export.untrained import untrained_parts  # noqa: E402


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    return untrained_parts()


@pytest.fixture(scope="module")
def untrained(
    parts: tuple[dict[str, Any], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> DecoderBundle:
    fields, contents = parts
    return write_bundle(tmp_path_factory.mktemp("torch") / "b", fields, **contents)


def test_graph_and_module_agree_on_carried_memory(untrained: DecoderBundle) -> None:
    opened = open_backend(untrained, "onnxruntime-cpu")
    assert 0 < opened.parity_error < 1e-4


def test_weights_on_disk_are_the_network(untrained: DecoderBundle) -> None:
    opened = open_backend(untrained, "torch")
    assert opened.backend.name == "torch"
    assert opened.parity_error < 1e-5


def test_other_weights_disagree_with_the_record(
    parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    fields, contents = parts
    weights = dict(contents["weights"])
    weights["decoder.readout.bias"] = weights["decoder.readout.bias"] + np.float32(0.01)
    bundle = write_bundle(tmp_path / "b", fields, **{**contents, "weights": weights})
    off = 20.0 * 0.01  # most where the linear filter has faded and the network is alone
    assert largest_error(open_cpu(bundle), bundle.parity()) == pytest.approx(off, rel=1e-3)
    with pytest.raises(BundleError, match="backend 'torch' disagrees"):
        open_backend(bundle, "torch")


def test_weights_of_another_network_are_refused(
    parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    fields, contents = parts
    weights = dict(contents["weights"])
    del weights["decoder.mix.bias"]
    bundle = write_bundle(tmp_path / "b", fields, **{**contents, "weights": weights})
    with pytest.raises(BundleError, match=r"decoder\.mix\.bias"):
        open_backend(bundle, "torch")


def test_reset_and_tables(untrained: DecoderBundle) -> None:
    backend = open_cpu(untrained)
    beat = untrained.parity().window(5)
    fresh = backend.step(beat, 0.0)["velocity"].copy()
    assert np.abs(backend.step(beat, 0.0)["velocity"] - fresh).max() > 1e-4
    backend.reset()
    np.testing.assert_array_equal(backend.step(beat, 0.0)["velocity"], fresh)
    backend.set_tables({**untrained.tables, "table": untrained.tables["table"][::-1]})
    backend.reset()
    assert np.abs(backend.step(beat, 0.0)["velocity"] - fresh).max() > 1e-4
    with pytest.raises(BundleError, match="none was given"):
        backend.set_tables({})


def test_row_that_is_not_there_is_a_step_that_failed(untrained: DecoderBundle) -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(BackendError, match="torch failed on 1 tokens"):
        open_cpu(untrained).step(TokenWindow(np.array([30], np.int32), one, one, 0.0), 0.0)

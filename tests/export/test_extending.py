"""The example of `docs/extending.md`: a new backend, from the page into the table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.backends import table
from export.backends.opening import open_backend, require_parity
from export.bundle import DecoderBundle
from export.errors import BackendError
from streams.messages import TokenWindow

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
NAME = "onnx-reference"


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the example's file and its line in the table, as the page says."""
    section = PAGE.split("## A new backend")[1].split("\n## ")[0]
    module, line = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "onnx_reference"}
    exec(compile(module, "onnx_reference.py", "exec"), names)
    exec("row = {" + line.strip() + "}", names)
    monkeypatch.setattr(table, "BACKENDS", table.BACKENDS | names["row"])


def test_the_new_backend_is_in_parity(family: DecoderBundle) -> None:
    backend = table.BACKENDS[NAME](family, "fp32")
    assert require_parity(family, backend) <= family.manifest.parity.atol_fp32


def test_it_is_opened_by_its_name_like_any_other(pristine: DecoderBundle) -> None:
    opened = open_backend(pristine, NAME, ["onnxruntime-cpu"])
    assert NAME in (opened.choice, *(attempt.name for attempt in opened.tried))


def test_a_failing_step_is_a_backend_error(pristine: DecoderBundle) -> None:
    one = np.zeros(1, np.float32)
    beyond = TokenWindow(np.full(1, 10**6, np.int32), one, one, t_window=0.0)
    with pytest.raises(BackendError):
        table.BACKENDS[NAME](pristine, "fp32").step(beyond, 0.0)

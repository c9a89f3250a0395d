"""The worked example of docs/extending-families.md, applied to a copy of the code and run there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from decoders.families import FAMILIES
from streams.sessions.nwb.writer import write_session
from tests.decoders.sessions import tuned_session

HOUSE = Path(__file__).parents[2]
ROOMS = ("streams", "decoders", "export", "calibration", "service")
TEXT = (HOUSE / "docs" / "extending-families.md").read_text()
RUN = """
import json, sys
from pathlib import Path
from calibration.adaptation.adapt import adapt
from calibration.errors import CalibrationError
from calibration.evaluate import evaluate
from decoders.train import train
from export.backends.opening import open_backend
from export.bundle import open_bundle
from export.graphs.runs import export_trained

run = train(Path("train.toml"), out=Path("run"))
export_trained(run, Path("bundle"))
for backend in ("onnxruntime-cpu", "torch"):
    open_backend(open_bundle(Path("bundle")), backend)
told = evaluate(Path("bundle"), [Path("one.nwb")])
try:
    adapt(Path("bundle"), Path("one.nwb"), out=Path("adapted"))
except CalibrationError as error:
    told["adapt"] = str(error)
print(json.dumps(told))
"""


class Block(NamedTuple):
    """A block of the page: its file, where in it, and its lines."""

    path: str
    place: str
    anchor: str
    code: str


def blocks() -> list[Block]:
    found = []
    for head, code in re.findall(r"```python\n# ([^\n]+)\n(.*?)```", TEXT, flags=re.DOTALL):
        new = re.fullmatch(r"(\S+) \(new\)", head)
        edit = re.fullmatch(r'(\S+), (before|after) "(.+)"', head)
        assert new or edit, head
        if edit:
            found.append(Block(edit[1], edit[2], edit[3].replace("\\n", "\n"), code))
        elif new:
            found.append(Block(new[1], "", "", code))
    return found


def apply(block: Block, root: Path) -> None:
    path = root / block.path
    if not block.place:
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.code)
        return
    text = path.read_text()
    assert text.count(block.anchor) == 1, block.anchor
    at = text.index(block.anchor) + (len(block.anchor) if block.place == "after" else 0)
    path.write_text(text[:at] + block.code + text[at:])


def test_a_family_touches_at_most_four_files() -> None:
    touched = {block.path for block in blocks() if block.place}
    assert len(touched | {"calibration/adaptation/adapt.py"}) <= 4


def test_no_other_file_tests_for_a_familys_name() -> None:
    tables = {"decoders/families.py", "decoders/config.py", "export/graphs/poyo.py"}
    names = "|".join(FAMILIES)
    for room in ("decoders", "export/graphs", "calibration/adaptation"):
        for path in (HOUSE / room).rglob("*.py"):
            tests = re.findall(rf'(?:==|!=|\bin) \(?"(?:{names})"', path.read_text())
            assert not tests or str(path.relative_to(HOUSE)) in tables, path


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the code with the example in it, and a session to learn from."""
    for room in ROOMS:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HOUSE / room, tmp_path / room, ignore=skipped)
    for block in blocks():
        apply(block, tmp_path)
    write_session(tuned_session(), tmp_path / "one.nwb")
    (config,) = re.findall(r"```toml\n# train.toml\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "train.toml").write_text(config)
    return tmp_path


def test_the_example_trains_exports_and_decodes(house: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=house,
        env={"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert min(told["outputs"]["velocity"]["r2"]) > 0.5
    assert "of family 'leaky' cannot be adapted" in told["adapt"]
    manifest = json.loads((house / "bundle" / "manifest.json").read_text())
    assert manifest["family"] == "leaky"
    assert manifest["graph"]["memory"] == ["memory_sum"]

"""The registry: content decides the place, one decoder is current, and every change is whole."""

from __future__ import annotations

import multiprocessing
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import RegistryError
from calibration.registry import Registry
from export.bundle import open_bundle
from export.errors import BundleError
from tests.export.tiny_graph import write_tiny_bundle

N_BUNDLES = 3


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three decoders."""
    folder = tmp_path_factory.mktemp("bundles")
    for i in range(N_BUNDLES):
        write_tiny_bundle(folder / f"tiny-{i}", ("u1", "u2"), name=f"tiny-{i}", seed=i)
    return sorted(folder.iterdir())


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_decoder_is_kept_by_its_content(registry: Registry, bundles: list[Path]) -> None:
    first, again = registry.add(bundles[0], "new"), registry.add(bundles[0], "once more")
    assert first == again == open_bundle(bundles[0]).manifest.id
    assert open_bundle(registry.root / "store" / first).manifest.name == "tiny-0"
    assert [event.why for event in registry.history()] == ["new"]
    assert registry.current() is None


def test_current_is_a_bundle_that_can_be_opened(registry: Registry, bundles: list[Path]) -> None:
    ids = [registry.add(path, "new") for path in bundles]
    registry.promote(ids[1][:8], "the better one")
    assert registry.current() == ids[1]
    assert open_bundle(registry.root / "current").manifest.id == ids[1]
    assert [entry.id for entry in registry.entries() if entry.current] == [ids[1]]
    assert registry.show(ids[1]).name == "tiny-1"


def test_rollback_goes_back_one_by_one(registry: Registry, bundles: list[Path]) -> None:
    ids = [registry.add(path, "new") for path in bundles]
    for id_ in ids:
        registry.promote(id_, "today's")
    assert registry.rollback("it drifts") == ids[1]
    assert registry.rollback("so does this") == ids[0]
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("once more")
    assert registry.current() == ids[0]
    assert [event.what for event in registry.history()][-2:] == ["rollback", "rollback"]
    assert registry.history()[-1].why == "so does this"


@settings(max_examples=25, deadline=None)
@given(acts=st.lists(st.integers(-1, N_BUNDLES - 1), max_size=12))
def test_current_follows_an_oracle(
    bundles: list[Path], tmp_path_factory: pytest.TempPathFactory, acts: list[int]
) -> None:
    """-1 rolls back, any other number promotes that decoder."""
    registry = Registry(tmp_path_factory.mktemp("oracle"))
    ids = [registry.add(path, "new") for path in bundles]
    line: list[str] = []
    for act in acts:
        if act >= 0:
            registry.promote(ids[act], "")
            line += [ids[act]] if line[-1:] != [ids[act]] else []
        elif len(line) > 1:
            registry.rollback("")
            line.pop()
        else:
            with pytest.raises(RegistryError):
                registry.rollback("")
        assert registry.current() == (line[-1] if line else None)


def test_a_changed_decoder_is_not_promoted(registry: Registry, bundles: list[Path]) -> None:
    good, bad = (registry.add(path, "new") for path in bundles[:2])
    registry.promote(good, "")
    graph = registry.root / "store" / bad / "graph.onnx"
    graph.chmod(0o644)
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="checksum"):
        registry.promote(bad, "")
    assert registry.current() == good


def test_what_is_no_bundle_is_not_added(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError):
        registry.add(tmp_path / "empty", "")
    assert registry.entries() == []


@pytest.mark.parametrize("beginning", ["", "abc", "zzzz"])
def test_unknown_and_short_ids_are_refused(
    registry: Registry, bundles: list[Path], beginning: str
) -> None:
    registry.add(bundles[0], "")
    with pytest.raises(RegistryError, match="begins with"):
        registry.promote(beginning, "")


def test_files_are_read_only(registry: Registry, bundles: list[Path]) -> None:
    place = registry.root / "store" / registry.add(bundles[0], "")
    assert {file.stat().st_mode & 0o222 for file in place.iterdir()} == {0}


def _promote_often(root: Path, ids: list[str]) -> None:
    registry = Registry(root)
    for id_ in ids * 5:
        registry.promote(id_, str(os.getpid()))


def test_several_processes_lose_nothing(registry: Registry, bundles: list[Path]) -> None:
    ids = [registry.add(path, "new") for path in bundles]
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_promote_often, args=(registry.root, ids[i:] + ids[:i]))
        for i in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60.0)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    promotions = [event for event in registry.history() if event.what == "promote"]
    assert len(promotions) == 3 * 5 * len(ids)
    assert registry.current() == promotions[-1].id
    assert not [path for path in registry.root.iterdir() if path.name.startswith(".current")]


def _act_on_a_full_disk(root: Path, path: Path, id_: str, most_bytes: int) -> None:
    """Exits with 7 where the registry refuses; a file may not grow beyond `most_bytes`."""
    registry = Registry(root)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        registry.promote(id_, "it was better" * 100) if id_ else registry.add(path, "new")
    except RegistryError:
        os._exit(7)


@pytest.mark.parametrize("promotes", [False, True], ids=["add", "promote"])
def test_a_full_disk_leaves_the_old(
    registry: Registry, bundles: list[Path], promotes: bool
) -> None:
    ids = [registry.add(path, "new") for path in bundles[:2]]
    registry.promote(ids[0], "first")
    before = registry.history()
    context = multiprocessing.get_context("spawn")
    worker = context.Process(
        target=_act_on_a_full_disk,
        args=(registry.root, bundles[2], ids[1] if promotes else "", 1000),
    )
    worker.start()
    worker.join(timeout=60.0)
    assert worker.exitcode == 7
    assert registry.current() == ids[0]
    assert registry.history() == before
    assert {entry.id for entry in registry.entries()} == set(ids)
    hidden = [path.name for path in registry.root.rglob(".*")]
    assert hidden == [".lock"]

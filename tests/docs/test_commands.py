"""The commands of the tutorials, run as a reader would: one page, one folder, real processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, ROOT, Block, blocks, pages
from tests.system.running import unique, wait_until

RUN = [page for page in pages() if any(block.is_run for block in blocks(page))]
READ = [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "clients" / "README.md"]
COMMAND = re.compile(
    r"^(?:sudo |\w+=\S+ )*"
    r"(spikeloop|python3?|pipx?|uvx|make|npm|node|git|pytest|docker|podman|systemctl|octave) ",
    flags=re.M,
)
WITHIN_S = 300.0
"""Ends a page that hangs; it measures nothing."""


def two_free_ports() -> tuple[int, int]:
    """One after the other, as `spikeloop init` takes them."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            decode = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", decode + 1))
                return decode, decode + 1


class Reader:
    """Somebody who follows a page.

    Args:
        folder: where they work.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._n = folder / "work", 0
        self._beside: list[subprocess.Popen[bytes]] = []
        self._folder.mkdir()
        decode, control = two_free_ports()
        self._addresses = {":5570": f":{decode}", ":5571": f":{control}"}
        commands = folder / "bin"
        commands.mkdir()
        command = commands / "spikeloop"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service.cli "$@"\n')
        command.chmod(0o755)
        lsl = folder / "lsl_api.cfg"
        # Streams of other tests, and of the lab, are not seen.
        lsl.write_text(f"[lab]\nSessionID = {unique('reader')}\n[log]\nlevel = -1\n")
        path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = os.environ | {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "LSLAPICFG": str(lsl),
            "SPIKELOOP_DECODE": f"tcp://127.0.0.1:{decode}",
            "SPIKELOOP_CONTROL": f"tcp://127.0.0.1:{control}",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def follow_and_check(self, block: Block) -> None:
        """Do what a block says."""
        text = block.text
        for shown, free in self._addresses.items():
            text = text.replace(f"127.0.0.1{shown}", f"127.0.0.1{free}")
        if block.file:
            (self._folder / block.file).write_text(text)
        elif block.is_beside:
            self._go_on(text, block.until)
        elif block.is_run:
            self._run(text)

    def _run(self, text: str) -> None:
        out = self._folder.parent / f"run-{self._n}.txt"
        with self._started(text, out) as process:
            try:
                code = process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"it hangs: {text}\n{out.read_text()}") from None
        assert code == 0, f"{text}\nended with code {code}:\n{out.read_text()}\n{self._said()}"

    def _go_on(self, text: str, until: str) -> None:
        out = self._folder.parent / f"beside-{self._n}.txt"
        process = self._started(text, out)
        self._beside.append(process)

        def is_ready() -> bool:
            assert process.poll() is None, f"{text}\nended:\n{out.read_text()}"
            return until in out.read_text()

        wait_until(is_ready, within_s=WITHIN_S)

    def _started(self, text: str, out: Path) -> subprocess.Popen[bytes]:
        self._n += 1
        with out.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-e", "-c", text],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _said(self) -> str:
        said = sorted(self._folder.parent.glob("beside-*.txt"))
        return "\n".join(f"{one.name}:\n{one.read_text()[-3000:]}" for one in said)

    def leave(self) -> None:
        """End what goes on."""
        for process in self._beside:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    somebody = Reader(tmp_path)
    yield somebody
    somebody.leave()


@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_commands_of_a_page_do_what_it_says(reader: Reader, page: Path) -> None:
    for block in blocks(page):
        reader.follow_and_check(block)


@pytest.mark.parametrize("page", READ, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_run_or_said_not_to_be(page: Path) -> None:
    for block in blocks(page):
        if block.is_command:
            assert block.is_run or re.fullmatch(r"not run: .{10,}", block.mark), block.text
        elif block.language in ("", "text"):
            assert not COMMAND.search(block.text), f"fence it as sh: {block.text}"


def test_every_tutorial_is_run() -> None:
    assert set(RUN) >= set((DOCS / "tutorials").glob("*.md"))

"""A simulated subject beside the daemon, where the config allows one and no stream answers.

Its decodes are no person's. So it is started only at the daemon's start, never for a stream that
was there and is gone, and everything that tells of the source says so.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from service.config import InputConfig
from service.errors import ConfigError
from service.loop.intake.source import FindInlet, OpenInlet
from streams.errors import StreamAbsentError
from streams.lsl.inlets import find_inlet

STARTS_WITHIN_S = 60.0
"""Python, numpy and LSL are loaded first, on a machine that compiles a decoder meanwhile."""
ENDS_WITHIN_S = 5.0
SUBJECT, DAY = 1, 8
"""As in `spikeloop demo`: the shipped decoder has units of this subject."""
CHANGE = (
    "for a stream of your own: start its sender, then `spikeloop init`, which writes its config; "
    "`simulate_if_absent = false` under [input] never simulates"
)
_log = logging.getLogger("spikeloop")


class StandIn:
    """Starts the simulated subject where needed, and ends it with the daemon.

    Args:
        config: what is looked for first.
        decodes: the daemon's endpoint, which closes the loop; "" lets the hand move the cursor.
    """

    def __init__(self, config: InputConfig, decodes: str) -> None:
        self._config, self._decodes = config, decodes
        self._name = f"simulated-subject-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._was_found = False

    def after(self, find: FindInlet) -> FindInlet:
        """Return a search that turns to the simulated subject once `find` has found nothing."""

        def find_or_simulate(timeout_s: float) -> OpenInlet:
            if self._process is not None:
                return self._find(timeout_s)
            try:
                inlet = find(timeout_s)
            except StreamAbsentError:
                # A person's stream that has gone is waited for, not played.
                if self._was_found:
                    raise
                self._start()
                return self._find(STARTS_WITHIN_S)
            self._was_found = True
            return inlet

        return find_or_simulate

    def close(self) -> None:
        """End the subject."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        text = (
            f"no LSL stream of type {self._config.type!r} answered within "
            f"{self._config.wait_s:g} s: a SIMULATED subject is decoded, no person; {CHANGE}"
        )
        _log.warning("simulating", extra={"detail": {"warning": text}})
        loop = ["--decodes", self._decodes] if self._decodes else []
        # It ends with its standard input, so also when the daemon is killed.
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "service.cli", "simulate", "--until-stdin-ends",
                "--subject", str(SUBJECT), "--day", str(DAY), "--name", self._name, *loop,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _find(self, timeout_s: float) -> OpenInlet:
        try:
            return find_inlet(
                "Spikes", name=self._name, timeout_s=timeout_s, recover=False,
                budget_per_s=self._config.budget_spikes_per_s, gave_up=self._has_ended,
            )  # fmt: skip
        except StreamAbsentError as err:
            if not self._has_ended() or self._was_found:
                raise
            raise ConfigError(
                "no stream answered, and the simulated subject did not start; "
                "`spikeloop simulate` says why"
            ) from err

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

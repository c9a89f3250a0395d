"""Across the room: may the decodes be trusted, what decodes, and for how long."""

from __future__ import annotations

from typing import Any

from service.page.inputs.wire import Heard
from service.words import flags_in_words, reason_and_remedy, seconds_in_words, silence_of

GONE_HOPS, GONE_S = 5.0, 0.4
"""A daemon is silent once as many hops, and this long, have passed without a decode."""


class ValidityPanel:
    """Keeps the newest decode and heartbeat.

    Args:
        is_live: a daemon is shown, not a recorded run: then something can be done about silence.
    """

    def __init__(self, *, is_live: bool = True) -> None:
        self._is_live = is_live
        self._decode: dict[str, Any] = {}
        self._heartbeat: dict[str, Any] = {}
        self._t_heard_s = float("-inf")
        self._in_service = ("", 0.0)

    @property
    def hop_s(self) -> float:
        """From one beat to the next; 20 ms until a heartbeat said it."""
        return float(self._heartbeat.get("hop_ms", 20.0)) * 1e-3

    @property
    def heartbeat(self) -> dict[str, Any]:
        """The newest heartbeat; empty before the first."""
        return self._heartbeat

    def take(self, heard: Heard) -> None:
        """Take in one message."""
        if heard.topic == "heartbeat":
            self._heartbeat = heard.message
        elif heard.topic == "decode":
            decode = heard.message
            who = f"{decode['run_id']} {decode['checksum']}"
            if who != self._in_service[0]:
                is_same_run = self._in_service[0].startswith(decode["run_id"])
                before_s = 0.0 if is_same_run else decode["beat"] * self.hop_s
                self._in_service = (who, heard.t_s - before_s)
            self._decode, self._t_heard_s = decode, heard.t_s

    def fast(self, now_s: float, trouble: str) -> dict[str, Any]:
        """Return the validity now, why, and what to do."""
        silent_s = now_s - self._t_heard_s
        validity, remedy = "silent", IS_RUNNING if self._is_live else ""
        if not self._decode:
            reason, words = "waiting", trouble or (WAITING if self._is_live else BEFORE)
        elif silent_s > max(GONE_S, GONE_HOPS * self.hop_s):
            reason, words = "gone", f"no decode for {seconds_in_words(silent_s)}"
            if self._decode["reason"] == "stopping":
                words = f"the daemon ended {seconds_in_words(silent_s)} ago, as it was asked to"
                remedy = "`spikeloop serve` starts it" if self._is_live else ""
        else:
            validity, reason = self._decode["validity"], self._decode["reason"]
            words, remedy = reason_and_remedy(reason, silence_of(self._decode))
        return {"validity": validity, "reason": reason, "words": words, "remedy": remedy}

    def slow(self, now_s: float) -> dict[str, Any]:
        """Return what decodes, and since when."""
        decode, heartbeat = self._decode, self._heartbeat
        if not decode:
            return {}
        return {
            "decoder": decode["decoder_id"],
            "checksum": decode["checksum"][:12],
            "backend": f"{decode['backend']} {decode['precision']}",
            "run": decode["run_id"],
            "hop_ms": self.hop_s * 1e3,
            "in_service_s": now_s - self._in_service[1],
            "source": heartbeat.get("source", ""),
            "flags": flags_in_words(heartbeat.get("flags", [])),
            "recording": heartbeat.get("recorded"),
            "record_failed": "record" in heartbeat.get("flags", []),
        }


WAITING = "waiting for the daemon's first decode"
BEFORE = "before the run's first decode"
IS_RUNNING = "is the daemon running?"

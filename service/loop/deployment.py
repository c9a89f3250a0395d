"""Bringing another decoder into service: loaded, held to its record, warmed up, in shadow, active.

Runs in a thread of its own beside the beat. What fails is refused with the reason, and the decoder
in service goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.backends import OpenedBackend, open_backend
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from service.config import ServeConfig
from service.errors import ServiceError
from service.loop.beat import Beat
from service.loop.decoder import Decoder, Seat
from service.loop.failover import Failover
from service.loop.lineup import Request
from service.loop.validity import UNKNOWN_SHARE, ValidityJudge

TAKES_OVER_WITHIN_S = 10.0


class RefusedError(ServiceError):
    """A decoder is not taken into service."""


@dataclass(slots=True)
class Deployment:
    """How far one deployment has come.

    Attributes:
        path: of the bundle.
        shadow_s: how long it decodes in shadow first.
        hold: whether it stays in shadow until `promote`.
        stages: those reached: `received`, `loaded`, `parity`, `shadow`, `active`.
        refused: why it was refused, "" if it was not.
        over: whether anything is still to come.
    """

    path: Path
    shadow_s: float = 0.0
    hold: bool = False
    stages: list[dict[str, Any]] = field(default_factory=lambda: [{"stage": "received"}])
    refused: str = ""
    over: bool = False

    def reach(self, stage: str, **detail: Any) -> None:
        """Note a stage."""
        self.stages.append({"stage": stage, **detail})

    def as_dict(self) -> dict[str, Any]:
        """For a reply."""
        return {
            "bundle": str(self.path),
            "stages": list(self.stages),
            "refused": self.refused,
            "over": self.over,
        }


class Deployer:
    """Carries deployments out, one at a time.

    Args:
        config: the daemon's.
        beat: whose lineup changes.
        source_keys: the source's growing list of keys.
        keep_alive_every_s: of the source.
        report: called with (event, detail).
    """

    def __init__(
        self,
        config: ServeConfig,
        beat: Beat,
        source_keys: list[str],
        keep_alive_every_s: float,
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._config, self._beat, self._source_keys = config, beat, source_keys
        self._keep_alive_every_s = keep_alive_every_s
        self._report = report
        self._stopping = threading.Event()
        self.latest: Deployment | None = None
        choices = (config.decoder.backend, *config.decoder.fallback)
        self.failover = Failover(choices, beat, self.warmed_up, self.change, report)

    def start(self, deployment: Deployment) -> None:
        """Begin; returns at once.

        Raises:
            RefusedError: another deployment is under way.
        """
        if self.latest is not None and not self.latest.over:
            raise RefusedError(f"{self.latest.path} is being deployed; wait for it to end")
        self.latest = deployment
        threading.Thread(
            target=self._deploy, args=(deployment,), name="deploy", daemon=True
        ).start()

    def stop(self) -> None:
        """Let a deployment under way end early."""
        self._stopping.set()

    def change(self, request: Request) -> None:
        """Ask the beat for a change and wait until it is carried out.

        Raises:
            RefusedError: it cannot be.
        """
        self._beat.lineup.requests.append(request)
        if not request.done.wait(TAKES_OVER_WITHIN_S):
            raise RefusedError(f"the beat did not {request.change} within {TAKES_OVER_WITHIN_S} s")
        if request.error:
            raise RefusedError(request.error)

    def _deploy(self, deployment: Deployment) -> None:
        try:
            self._carry_through(deployment)
        except (ExportError, ServiceError) as err:
            deployment.refused = str(err)
            self._report("refused", {"bundle": str(deployment.path), "warning": str(err)})
        finally:
            deployment.over = True

    def _carry_through(self, deployment: Deployment) -> None:
        bundle = open_bundle(deployment.path)
        deployment.reach("loaded", id=bundle.manifest.id, name=bundle.manifest.name)
        self._require_fit(bundle)
        decoder_config = self._config.decoder
        opened = open_backend(bundle, decoder_config.backend, decoder_config.fallback)
        deployment.reach(
            "parity", error=opened.parity_error, backend=opened.backend.name,
            step_p99_ms=opened.step_p99_s * 1e3,
        )  # fmt: skip
        self.failover.prepare(bundle, opened)
        seat = self.warmed_up(bundle, opened)
        self.change(Request("join", seat))
        deployment.reach("shadow")
        if deployment.hold:
            return
        self._stopping.wait(deployment.shadow_s)
        if seat.reason not in ("", "paused", "context_short"):
            self.change(Request("dismiss"))
            raise RefusedError(f"in shadow its decodes were not ok: {seat.reason}")
        self.change(Request("promote"))
        deployment.reach("active")

    def _require_fit(self, bundle: DecoderBundle) -> None:
        new, now = bundle.manifest, self._beat.decoder.manifest
        for what, ours, theirs in (
            ("hop", now.hop_s, new.hop_s),
            ("bin", now.bin_s, new.bin_s),
            ("outputs", [(o.name, o.dims, o.unit) for o in now.outputs],
             [(o.name, o.dims, o.unit) for o in new.outputs]),
        ):  # fmt: skip
            if ours != theirs:
                raise RefusedError(
                    f"its {what} ({theirs}) are not those in service ({ours}); one of another "
                    "kind needs a restart of the daemon with it in the config"
                )
        unknown, heard = self._unknown_share(bundle)
        if heard and unknown > UNKNOWN_SHARE:
            raise RefusedError(
                f"{unknown:.0%} of the spikes of the last seconds come from units that it does not "
                "know; was it made for another array, or are the units numbered anew?"
            )

    def _unknown_share(self, bundle: DecoderBundle) -> tuple[float, int]:
        batches = [spikes.unit for _, spikes in list(self._beat.lineup.recent)]
        unit = np.concatenate(batches) if batches else np.zeros(0, np.int32)
        keys = list(self._source_keys)
        known = np.array([key in bundle.row_of_key for key in keys], dtype=np.bool_)
        return (float(np.mean(~known[unit])), len(unit)) if len(unit) else (0.0, 0)

    def warmed_up(self, bundle: DecoderBundle, opened: OpenedBackend) -> Seat:
        """A seat that has run the bins of the last seconds, if its network carries memory."""
        manifest, beat = bundle.manifest, self._beat
        decoder = Decoder(
            manifest,
            opened.backend,
            bundle.row_of_key,
            self._source_keys,
            self._config.beat.token_cap,
            opened.step_p99_s,
            beat.decoder.kernels,
        )
        judge = ValidityJudge(
            manifest.context_s, manifest.stale_after_s, self._keep_alive_every_s, manifest.hop_s
        )
        recent = list(beat.lineup.recent)
        decoder.k_reset = recent[0][0] - 1 if recent else beat.last_k
        carries = bool(manifest.graph.memory)
        decoder.last_k = decoder.k_reset if carries or not recent else recent[-1][0]
        while carries and recent:
            for k, spikes in recent:
                window, _ = decoder.cut(spikes, k, beat.schedule.window_end_s(k))
                decoder.run(window, k, beat.lead_s)
            recent = [held for held in list(beat.lineup.recent) if held[0] > decoder.last_k]
        return Seat(decoder, judge, beat.lineup.active.shaper.fresh())

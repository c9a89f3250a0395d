"""Open a backend beside the loop, with a time limit: native code may never return."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Sequence
from typing import Any

from export.backends.opening import OpenedBackend, open_backend
from export.bundle import DecoderBundle
from export.errors import BackendUnavailable
from export.manifest import Manifest
from service.guard import Guard


def open_within(
    bundle: DecoderBundle,
    name: str,
    fallback: Sequence[str],
    most_s: float,
    among: Collection[str] = (),
) -> OpenedBackend:
    """Open a backend as `open_backend` does; a thread that hangs is left behind.

    Raises:
        BackendUnavailable, BundleError: see `open_backend`; or it was not open in time.
    """
    done: queue.SimpleQueue[OpenedBackend | BaseException] = queue.SimpleQueue()

    def run() -> None:
        with Guard(BaseException, done.put):
            done.put(open_backend(bundle, name, fallback, among=among))

    threading.Thread(target=run, name=f"open {name}", daemon=True).start()
    try:
        found = done.get(timeout=most_s)
    except queue.Empty:
        raise BackendUnavailable(
            f"backend {name!r} was not open within {most_s:g} s; `open_most_s` under [decoder] "
            "allows more"
        ) from None
    if isinstance(found, BaseException):
        raise found
    return found


def describe(manifest: Manifest, opened: OpenedBackend) -> dict[str, Any]:
    """Return what the event `started` tells of a decoder."""
    backend, ranking = opened.backend, opened.ranking
    return {
        "decoder_id": manifest.name,
        "checksum": manifest.id,
        "backend": backend.name,
        "precision": backend.precision,
        "library": backend.library,
        "step_p99_ms": opened.step_p99_s * 1e3,
        "backend_choice": ranking.as_dict() if ranking else {},
        "refused_backends": {one.name: one.reason for one in opened.tried},
        "hop_ms": manifest.hop_s * 1e3,
    }

"""Open a backend beside the loop, with a time limit: native code may never return."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Sequence

from export.backends.opening import OpenedBackend, open_backend
from export.bundle import DecoderBundle
from export.errors import BackendUnavailable
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

"""`backend = "auto"`: the fastest of the installed backends that passes the gate.

They are timed once for a graph, these libraries and this machine; the next start remembers.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from export.backends import table
from export.backends.table import GPU_BACKENDS, REFERENCE
from export.bundle import DecoderBundle
from export.choice.gate import Attempt, OpenedBackend, open_one, refusal_of
from export.choice.machine import cpu_model, gpu_name, library_versions
from export.choice.paced import time_in_turn
from export.choice.ranking import Ranking
from export.choice.remembered import Key, cache_folder, recall, remember
from export.engines.builds import names_of_builds
from export.errors import ExportError, NotProvidedError

_log = logging.getLogger("spikeloop")


def open_fastest(bundle: DecoderBundle, among: Collection[str] = ()) -> OpenedBackend:
    """Open the fastest backend for a bundle: the one remembered, else all that can run, timed.

    Args:
        bundle: the decoder.
        among: the only backends to consider, if one of them runs it; none: all. Beside a running
            loop these are the ones whose libraries it has loaded, for loading another would hold
            up its beats.

    Raises:
        BackendUnavailable: none of them can run here.
        BundleError: those that can run disagreed with the record or were too slow.
    """
    gpu = gpu_name()
    names = considered(gpu)
    key = _key(bundle, names, gpu)
    held = recall(cache_folder(), key)
    if held is not None:
        order = [name for name in held.order if name in among] or held.order
        try:
            return _with_ranking(open_one(bundle, order[0]), order, held)
        except ExportError as error:
            _log.warning("remembered_backend_refused", extra={"detail": {order[0]: str(error)}})
    allowed = [name for name in names if name in among]
    try:
        return _open_and_time(bundle, allowed or names, None if allowed else key)
    except ExportError:
        if not allowed:
            raise
        return _open_and_time(bundle, names, key)


def considered(gpu: str) -> list[str]:
    """Name the backends that can be the fastest here, installed or not.

    Args:
        gpu: name of the GPU in this machine; "" for none.
    """
    names = [name for name in table.BACKENDS if name != REFERENCE]
    return [name for name in names if gpu or name not in GPU_BACKENDS]


def _open_and_time(bundle: DecoderBundle, names: Collection[str], key: Key | None) -> OpenedBackend:
    """Open all of these, time them in turn, and keep the ranking if there is a key for it."""
    _log.info("timing_backends", extra={"detail": {"bundle": bundle.path, "backends": [*names]}})
    opened: dict[str, OpenedBackend] = {}
    refused: dict[str, ExportError] = {}
    for name in names:
        try:
            opened[name] = open_one(bundle, name)
        except ExportError as error:
            refused[name] = error
    if not opened:
        raise refusal_of(refused)
    taken_s = time_in_turn(bundle, {name: one.backend for name, one in opened.items()})
    order = sorted(opened, key=lambda name: taken_s[name])
    ranking = Ranking(
        {name: round(taken_s[name] * 1e3, 4) for name in order},
        {name: round(opened[name].step_p50_s * 1e3, 4) for name in order},
    )
    note = _kept(key, ranking, refused)
    tried = tuple(Attempt(name, str(error)) for name, error in refused.items())
    best = _with_ranking(opened[order[0]], order, replace(ranking, note=note))
    return replace(best, tried=tried)


def _kept(key: Key | None, ranking: Ranking, refused: dict[str, ExportError]) -> str:
    """Keep a ranking unless another start may well find another; return why it was not kept."""
    if key is None:
        return "only backends that are loaded already were timed beside the running loop"
    # What is absent will be so again. A full card, a damaged cache or a busy moment pass, and
    # another bundle of this graph may well be in parity.
    passing = [name for name, error in refused.items() if not isinstance(error, NotProvidedError)]
    if passing:
        return f"{', '.join(passing)} did not run this time, and may the next"
    return remember(cache_folder(), key, ranking)


def _with_ranking(opened: OpenedBackend, order: Sequence[str], ranking: Ranking) -> OpenedBackend:
    """Add the ranking, and what of the order may take over: after a GPU's failure, a CPU."""
    others = [name for name in order if name != opened.choice]
    if opened.choice in GPU_BACKENDS:
        others = [name for name in others if name not in GPU_BACKENDS]
    return replace(opened, next_choices=tuple(others), ranking=ranking)


def _key(bundle: DecoderBundle, names: Collection[str], gpu: str) -> Key:
    """Name all that a ranking depends on."""
    return {
        "graph": bundle.graph_sha256,
        "cpu": cpu_model(),
        "gpu": gpu,
        "libraries": library_versions(),
        "backends": [*names],
        "builds": names_of_builds(bundle),
    }

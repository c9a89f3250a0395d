"""Chooses how a decoder's pushes are found, by its family."""

from __future__ import annotations

from export.backends.opening import open_backend
from export.bundle import DecoderBundle, decoder_weights
from export.errors import NotProvidedError
from export.influence.additive import AdditivePushes
from export.influence.left_out import LeftOutPushes
from export.influence.streaming_network import StreamingNetwork

LEFT_OUT_AT_MOST = 2000
"""Units: a regression over more would take hundreds of megabytes."""
LEFT_OUT_BACKEND = "onnxruntime-cpu"
_ADDITIVE_FAMILY = "streaming"


def open_pushes(bundle: DecoderBundle, lead_s: float, t_s: float) -> AdditivePushes | LeftOutPushes:
    """Open what finds the units' pushes on a bundle's decode.

    Args:
        bundle: the decoder in service.
        lead_s: how far ahead the daemon decodes.
        t_s: end of the first bin.

    Raises:
        BackendUnavailable, BundleError: a backend is needed and does not open; see `open_backend`.
        NotProvidedError: units would have to be left out, and there are too many.
    """
    manifest = bundle.manifest
    config = manifest.training.get("config")
    if manifest.family == _ADDITIVE_FAMILY and isinstance(config, dict):
        weights = decoder_weights(bundle.weights())
        network = StreamingNetwork(weights, bundle.tables, config, lead_s)
        return AdditivePushes(network, manifest.hop_s, manifest.bin_s, t_s)
    n_rows = 1 + max(unit.row for unit in manifest.units)
    if n_rows > LEFT_OUT_AT_MOST:
        raise NotProvidedError(
            f"influence on {manifest.name!r} is found by leaving units out, which is done for at "
            f"most {LEFT_OUT_AT_MOST:,} of them; it has {n_rows:,}"
        )
    has_memory = bool(manifest.graph.memory)
    return LeftOutPushes(
        open_backend(bundle, LEFT_OUT_BACKEND).backend,
        {output.name: output.dims for output in manifest.outputs},
        n_rows,
        hop_s=manifest.hop_s,
        bin_s=manifest.bin_s,
        context_s=manifest.context_s if has_memory else 0.0,
        lead_s=lead_s,
        t_s=t_s,
    )

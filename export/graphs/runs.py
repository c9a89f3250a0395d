"""Export a training run: one row per family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decoders.checkpoint import CHECKPOINT, load_checkpoint
from decoders.config import DEFAULT_FAMILY, POYO_FAMILY
from decoders.errors import DecodersError
from export.bundle import DecoderBundle
from export.errors import ExportError
from export.graphs.poyo import export_poyo_run
from export.graphs.streaming import export_run

EXPORTERS: dict[str, Callable[[Path, Path, str | None], DecoderBundle]] = {
    DEFAULT_FAMILY: lambda path, out, session: export_run(path, out, session=session),
    POYO_FAMILY: export_poyo_run,
}
"""What writes the bundle of a checkpoint: `(checkpoint, out, session)`."""


def export_trained(run_dir: Path, out: Path, *, session: str | None = None) -> DecoderBundle:
    """Make a training run's bundle.

    Args:
        run_dir: the run's directory, or its checkpoint file.
        out: directory to write; must not exist; its name becomes the decoder's.
        session: id of the exported session; the last in the
            order of ids if None.

    Raises:
        ExportError: no such run or session, or the bundle cannot be written.
    """
    path = run_dir / CHECKPOINT if run_dir.is_dir() else run_dir
    try:
        family = load_checkpoint(path, family=None)["family"]
        if family not in EXPORTERS:
            raise ExportError(
                f"{path} is of family {family!r}; exported are {', '.join(EXPORTERS)}"
            )
        return EXPORTERS[family](path, out, session)
    except DecodersError as error:
        raise ExportError(str(error)) from error

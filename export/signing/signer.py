"""Sign bundles with a key that is read before the work begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.bundle import open_bundle
from export.signing.keys import read_signing_key
from export.signing.signature import sign_bundle


def signer_of(key: Path | None) -> Callable[[Path], None]:
    """Read a key; return what signs a bundle with it, and does nothing where there is none.

    Raises:
        SigningError: the key cannot be read: said at once, not after hours of training.
    """
    if key is None:
        return lambda _: None
    held = read_signing_key(key)

    def sign(path: Path) -> None:
        sign_bundle(path, open_bundle(path).manifest.files, held)

    return sign

"""The GPU in this machine, asked of the driver's own tool: no CUDA library is needed to be told."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from export.errors import BackendUnavailable

_ASK = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card.

    Attributes:
        name: as its driver calls it.
        compute_capability: e.g. "8.9".
        driver: its version.
    """

    name: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, {self.compute_capability}, {self.driver}"

    @property
    def target(self) -> str:
        """The compute capability as TensorRT for RTX names it, e.g. "sm89"."""
        return "sm" + self.compute_capability.replace(".", "")


def find_gpu() -> Gpu:
    """The GPU that a process uses first.

    Raises:
        BackendUnavailable: there is none, or no driver.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        done = subprocess.run(
            [*_ASK, f"--id={visible}"], capture_output=True, text=True, timeout=WITHIN_S, check=True
        )
    except FileNotFoundError:
        raise BackendUnavailable(
            "no NVIDIA GPU: there is no `nvidia-smi`; install the NVIDIA driver, or use "
            "onnxruntime-cpu"
        ) from None
    except (subprocess.SubprocessError, OSError) as error:
        raise BackendUnavailable(f"the NVIDIA driver does not answer: {error}") from error
    fields = [part.strip() for part in done.stdout.strip().splitlines()[0].split(",")]
    return Gpu(*fields[:3])

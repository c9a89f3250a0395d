"""Which GPU there is, asked of the driver's own tool: no CUDA library is needed to be told."""

from __future__ import annotations

import os
import subprocess

from export.errors import BackendUnavailable

_ASK = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
WITHIN_S = 10.0


def describe_gpu() -> str:
    """The GPU that a process uses first: name, compute capability and driver.

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
    return ", ".join(part.strip() for part in done.stdout.strip().splitlines()[0].split(","))

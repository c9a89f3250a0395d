"""Record what torch_brain 0.2.1 decodes: `python -m tests.decoders.record_poyo_reference`.

Run where the extra `parity` is installed; writes `poyo_reference.ckpt`, a checkpoint of
torch_brain's own network in Lightning's layout, with windows and their decodes beside the weights.
"""

from __future__ import annotations

import numpy as np
import torch

from decoders.poyo.config import PoyoConfig
from decoders.poyo.tokens import PoyoWindow
from tests.decoders.poyo_windows import REFERENCE, hyper_parameters, random_network
from tests.decoders.test_poyo_parity import QUERIES_S, collated, theirs

N_UNITS = 12
N_SPIKES = (0, 1, 60, 300)


def reference_config() -> PoyoConfig:
    return PoyoConfig(
        sequence_s=1.0,
        latent_step_s=0.25,
        dim_out=2,
        n_latents_per_step=3,
        dim=16,
        depth=1,
        cross_heads=2,
        self_heads=2,
    )


def random_windows(rng: np.random.Generator) -> list[PoyoWindow]:
    """The last three units never fire."""
    units = np.arange(1, N_UNITS + 1)
    return [
        PoyoWindow(
            units=units,
            unit=rng.integers(0, N_UNITS - 3, n),
            t_s=np.sort(rng.integers(1, 1_000_001, n)) * 1e-6,
            count=np.ones(n),
            session=1,
        )
        for n in N_SPIKES
    ]


def record() -> None:
    """Write the file."""
    ours = random_network(reference_config(), N_UNITS)
    weights = theirs(ours).state_dict()
    windows = random_windows(np.random.default_rng(0))
    answers = {}
    for dtype in (torch.float32, torch.float64):
        model = theirs(ours.to(dtype))
        with torch.no_grad():
            answers[str(dtype)] = model(**collated(model, windows, N_UNITS))
    recorded = {
        "unit": [torch.from_numpy(window.unit) for window in windows],
        "t_s": [torch.from_numpy(window.t_s) for window in windows],
        "query_s": torch.from_numpy(QUERIES_S),
        "answers": answers,
    }
    content = {
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "hyper_parameters": hyper_parameters(ours.config),
        "recorded": recorded,
    }
    torch.save(content, REFERENCE)


if __name__ == "__main__":
    record()

"""POYO against torch_brain 0.2.1 itself: the extra `parity` installs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decoders.poyo.checkpoint import read_checkpoint
from decoders.poyo.config import PoyoConfig, poyo_large, poyo_small
from decoders.poyo.network import Poyo
from decoders.poyo.tokens import PoyoWindow, batch_of
from tests.decoders.poyo_windows import (
    N_SILENT,
    RECORDINGS,
    SESSION,
    cut,
    random_network,
    recording,
    tiny_config,
    windows_of,
    words,
)

models = pytest.importorskip(
    "torch_brain.models", reason="torch_brain is not installed: pip install 'spikeloop[parity]'"
)
data = pytest.importorskip("torch_brain.data")
batching = pytest.importorskip("torch_brain.batching")

QUERIES_S = np.array([0.0, 0.31, 0.9999, 1.0])


def theirs(ours: Poyo) -> Any:
    """torch_brain's network with the same weights."""
    c = ours.config
    model = models.POYO(
        sequence_length=c.sequence_s,
        latent_step=c.latent_step_s,
        num_latents_per_step=c.n_latents_per_step,
        dim_out=c.dim_out,
        dim=c.dim,
        depth=c.depth,
        dim_head=c.dim_head,
        cross_heads=c.cross_heads,
        self_heads=c.self_heads,
        ffn_dropout=c.ffn_dropout,
        lin_dropout=c.lin_dropout,
        atn_dropout=c.atn_dropout,
    )
    model.load_state_dict(ours.state_dict())
    return model.to(ours.readout.weight.dtype).train(ours.training)


def tokenized(model: Any, window: PoyoWindow, n_units: int) -> dict[str, Any]:
    """What torch_brain's own tokenizer makes of the window."""
    spikes = data.IrregularTimeSeries(
        timestamps=window.t_s, unit_index=window.unit, domain=data.Interval(0.0, 1.0)
    )
    units = data.ArrayDict(id=np.array(words(n_units)))
    sample = data.Data(
        spikes=spikes, units=units, session=data.Data(id=SESSION), domain=data.Interval(0.0, 1.0)
    )
    return dict(model.tokenize(sample))


def decoded_by(model: Any, windows: Sequence[PoyoWindow], n_units: int) -> Tensor:
    batch = batching.collate([tokenized(model, window, n_units) for window in windows])
    query_s = torch.from_numpy(np.tile(QUERIES_S, (len(windows), 1)))
    answer: Tensor = model(**batch, output_timestamps=query_s)
    return answer


def both(
    config: PoyoConfig, name: str, dtype: torch.dtype, *, training: bool = False
) -> tuple[Tensor, Tensor]:
    session = recording(name)
    n_units = len(session.unit_keys) + N_SILENT
    ours = random_network(config, n_units).to(dtype).train(training)
    windows = windows_of(cut(session), n_units)
    assert len(windows[0].unit) == 0
    assert len({len(window.unit) for window in windows}) > 2
    query_s = np.tile(QUERIES_S, (len(windows), 1))
    torch.manual_seed(1)
    mine = ours(batch_of(windows, query_s, config.sequence_s))
    torch.manual_seed(1)
    return mine.detach(), decoded_by(theirs(ours), windows, n_units).detach()


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("config", [tiny_config(), poyo_small(2), poyo_large(3)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_decodes_as_torch_brain(
    config: PoyoConfig, name: str, dtype: torch.dtype, atol: float
) -> None:
    mine, expected = both(config, name, dtype)
    assert expected.abs().max() > 0.1
    assert (mine[1] - mine[2]).abs().max() > 100 * atol
    torch.testing.assert_close(mine, expected, rtol=0, atol=atol)

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
from decoders.poyo.tokens import PoyoBatch, PoyoWindow, batch_of
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
    write_lightning,
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


def collated(model: Any, windows: Sequence[PoyoWindow], n_units: int) -> dict[str, Tensor]:
    """A padded batch as torch_brain's loader makes it, with queries."""
    batch: dict[str, Tensor] = batching.collate(
        [tokenized(model, window, n_units) for window in windows]
    )
    query_s = torch.from_numpy(np.tile(QUERIES_S, (len(windows), 1)))
    return batch | {"output_timestamps": query_s}


def as_ours(batch: dict[str, Tensor]) -> PoyoBatch:
    """torch_brain's batch, token for token."""
    return PoyoBatch(
        unit=batch["input_unit_index"],
        kind=batch["input_token_type"],
        t_s=batch["input_timestamps"],
        count=batch["input_mask"].double(),
        session=batch["session_index"],
        query_s=batch["output_timestamps"],
    )


def network_and_windows(
    config: PoyoConfig, name: str, dtype: torch.dtype
) -> tuple[Poyo, list[PoyoWindow], int]:
    session = recording(name)
    n_units = len(session.unit_keys) + N_SILENT
    windows = windows_of(cut(session), n_units)
    assert len(windows[0].unit) == 0
    assert len({len(window.unit) for window in windows}) > 2
    return random_network(config, n_units).to(dtype), windows, n_units


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("config", [tiny_config(), poyo_small(2), poyo_large(3)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_decodes_as_torch_brain(
    config: PoyoConfig, name: str, dtype: torch.dtype, atol: float
) -> None:
    ours, windows, n_units = network_and_windows(config, name, dtype)
    model = theirs(ours)
    with torch.no_grad():
        expected = model(**collated(model, windows, n_units))
        query_s = np.tile(QUERIES_S, (len(windows), 1))
        found = ours(batch_of(windows, query_s, config.sequence_s))
    assert (expected[1] - expected[2]).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_window_alone_decodes_as_in_a_padded_batch() -> None:
    ours, windows, n_units = network_and_windows(tiny_config(), RECORDINGS[0], torch.float64)
    model = theirs(ours)
    with torch.no_grad():
        expected = model(**collated(model, windows, n_units))
        for i, window in enumerate(windows):
            found = ours(batch_of([window], QUERIES_S[None], ours.config.sequence_s))
            torch.testing.assert_close(found[0], expected[i], rtol=0, atol=1e-10)


def test_trains_as_torch_brain() -> None:
    """The same random numbers drop the same things, and the gradients are the same."""
    ours, windows, n_units = network_and_windows(tiny_config(), RECORDINGS[0], torch.float64)
    ours.train()
    model = theirs(ours)
    batch = collated(model, windows, n_units)
    answers = []
    for network, run in ((ours, lambda: ours(as_ours(batch))), (model, lambda: model(**batch))):
        torch.manual_seed(7)
        answer = run()
        answer.square().sum().backward()
        answers.append(answer.detach())
        assert network.training
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-10)
    mine = dict(ours.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine[name].grad, parameter.grad, rtol=0, atol=1e-8)
    with torch.no_grad():
        assert (ours.eval()(as_ours(batch)) - answers[0]).abs().max() > 1e-2


def test_checkpoint_of_torch_brain_opens(tmp_path: Path) -> None:
    """Written as torch_brain's example trains it; read by both."""
    ours, windows, n_units = network_and_windows(tiny_config(), RECORDINGS[0], torch.float32)
    write_lightning(tmp_path / "a.ckpt", theirs(ours).state_dict(), ours.config)
    read = read_checkpoint(tmp_path / "a.ckpt")
    model = models.POYO.load_pretrained(tmp_path / "a.ckpt").eval()
    assert read.unit_emb.words == words(n_units)
    with torch.no_grad():
        expected = model(**collated(model, windows, n_units))
        found = read(as_ours(collated(model, windows, n_units)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

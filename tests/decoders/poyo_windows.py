"""Windows of real spike trains, and networks with random weights, for the tests of POYO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decoders.poyo.config import OWN_NAMES, PoyoConfig
from decoders.poyo.network import Poyo
from decoders.poyo.tokens import PoyoWindow, exact_s
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from streams.spikes.tokenizer import TokenBins, cut_bins

DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDINGS = ("m1_center_out", "hippocampus_open_field_1")
REFERENCE = Path(__file__).with_name("poyo_reference.ckpt")
SESSION = "lab/monkey/day1"
N_SILENT = 5


def recording(name: str) -> Session:
    path = DATA / f"{name}.nwb"
    if not path.is_file():
        pytest.skip(f"the recording {path.name} is not on this machine")
    return read_session(path)


def window_ends_us(session: Session, n_windows: int, bin_us: int) -> np.ndarray:
    """Evenly over the recording; the first lies before it and is empty."""
    ends = np.linspace(2 * bin_us, session.duration_s * 1e6, n_windows - 1).astype(np.int64)
    return np.concatenate(([0], ends))


def cut(session: Session, n_windows: int = 6, bin_us: int = 1_000_000) -> TokenBins:
    rows = np.arange(len(session.unit_keys), dtype=np.int32)
    return cut_bins(session.spikes, rows, window_ends_us(session, n_windows, bin_us), bin_us)


def window_of_bin(bins: TokenBins, i_bin: int, units: np.ndarray) -> PoyoWindow:
    """Convert a recorded bin, its token times whole microseconds, to a window of session 1."""
    held = slice(int(bins.offsets[i_bin]), int(bins.offsets[i_bin + 1]))
    count = bins.count[held].astype(np.float64)
    unit = bins.unit[held].astype(np.int64)
    return PoyoWindow(units, unit, exact_s(bins.t_rel[held]), count, session=1)


def windows_of(bins: TokenBins, n_units: int) -> list[PoyoWindow]:
    """Rows 1 .. n_units of the vocabulary; units beyond those in `bins` are silent."""
    units = np.arange(1, n_units + 1)
    return [window_of_bin(bins, i, units) for i in range(len(bins))]


def tiny_config(dim_out: int = 2) -> PoyoConfig:
    return PoyoConfig(
        sequence_s=1.0,
        latent_step_s=0.125,
        dim_out=dim_out,
        n_latents_per_step=4,
        dim=16,
        depth=2,
        cross_heads=2,
        self_heads=3,
        atn_dropout=0.2,
    )


def words(n_units: int) -> list[str]:
    return [f"{SESSION}/u{i}" for i in range(n_units)]


def random_network(config: PoyoConfig, n_units: int, seed: int = 0) -> Poyo:
    """No parameter at its special initial value, so that each counts."""
    torch.manual_seed(seed)
    network = Poyo(config, words(n_units), [SESSION])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        network.unit_emb.weight[0] = 0.0
        network.session_emb.weight[0] = 0.0
    return network.eval()


def hyper_parameters(config: PoyoConfig) -> dict[str, Any]:
    """As a training with torch_brain saves them: its whole configuration."""
    named = {value: name for name, value in OWN_NAMES.items()}
    model = {named.get(name, name): value for name, value in config.to_dict().items()}
    del model["dim_out"]
    return {"model": {"_target_": "torch_brain.models.POYO", **model}, "batch_size": 128}


def write_lightning(path: Path, weights: Mapping[str, Any], config: PoyoConfig) -> None:
    """A checkpoint in Lightning's layout."""
    content = {
        "epoch": 3,
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "optimizer_states": [{"param_groups": [{"lr": 1e-3}], "state": {}}],
        "hyper_parameters": hyper_parameters(config),
    }
    torch.save(content, path)

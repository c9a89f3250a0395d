"""POYO 1.3M of torch_brain in eager torch, one decode at a time, timed when asked to.

Run by `python -m benchmarks.peers` in an environment of its own; it uses nothing of spikeloop.
Writes a checkpoint of its weights in Lightning's layout; then for each line `N` on standard input
it decodes N windows and answers with the milliseconds that each took, as JSON: `forward` the
network alone, `whole` with torch_brain's own tokenizer before it.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch
from torch_brain.batching import collate
from torch_brain.data import ArrayDict, Data, Interval, IrregularTimeSeries
from torch_brain.models import POYO

SHAPE = {
    "sequence_length": 1.0,
    "latent_step": 0.125,
    "num_latents_per_step": 16,
    "dim": 64,
    "depth": 6,
    "dim_head": 64,
    "cross_heads": 2,
    "self_heads": 8,
    "ffn_dropout": 0.2,
    "lin_dropout": 0.4,
    "atn_dropout": 0.2,
}
SESSION = "bench/units/one"


def network(words: list) -> POYO:
    """The published small shape, with weights drawn at random."""
    torch.manual_seed(0)
    model = POYO(dim_out=2, **SHAPE)
    model.unit_emb.initialize_vocab(words)
    model.session_emb.initialize_vocab([SESSION])
    return model.eval()


def window(words: list, rate_hz: float, seed: int) -> Data:
    """A second of Poisson spikes of all units."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(len(words) * rate_hz)
    spikes = IrregularTimeSeries(
        timestamps=np.sort(rng.random(n)),
        unit_index=rng.integers(0, len(words), n),
        domain=Interval(0.0, 1.0),
    )
    units = ArrayDict(id=np.array(words))
    domain = Interval(0.0, 1.0)
    return Data(spikes=spikes, units=units, session=Data(id=SESSION), domain=domain)


def decode(model: POYO, sample: Data) -> tuple[float, float]:
    """Milliseconds of one decode: the network alone, and with its tokenizer."""
    t_start = time.perf_counter()
    batch = collate([model.tokenize(sample)])
    batch["output_timestamps"] = torch.ones(1, 1)
    t_tokens = time.perf_counter()
    with torch.inference_mode():
        model(**batch)
    t_done = time.perf_counter()
    return 1e3 * (t_done - t_tokens), 1e3 * (t_done - t_start)


def main() -> None:
    """Write the checkpoint, say what it is, then answer each line."""
    p = argparse.ArgumentParser()
    p.add_argument("--units", type=int, required=True)
    p.add_argument("--rate", type=float, required=True)
    p.add_argument("--checkpoint", required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    words = [f"{SESSION}/u{i}" for i in range(a.units)]
    model = network(words)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    made_by = {"model": {"_target_": "torch_brain.models.POYO", **SHAPE}}
    torch.save({"state_dict": weights, "hyper_parameters": made_by}, a.checkpoint)
    samples = [window(words, a.rate, seed) for seed in range(20)]
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    embedded = model.unit_emb.weight.numel() + model.session_emb.weight.numel()
    sys.stdout.write(json.dumps({"parameters": n_parameters - embedded}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        taken = [decode(model, samples[i % len(samples)]) for i in range(int(line))]
        told = {"forward": [one[0] for one in taken], "whole": [one[1] for one in taken]}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

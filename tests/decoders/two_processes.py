"""Started by torchrun from `test_trainer`: trains 50 steps and writes the losses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch import distributed

from decoders.streaming.trainer import Trainer
from decoders.train import launch
from decoders.training.recordings import record
from tests.decoders.sessions import small_config, tuned_session

N_STEPS = 50


def losses() -> tuple[list[float], int, int]:
    """The loss of each step, this process's rank, and how many there are."""
    config = small_config(devices={"accelerator": "cpu"})
    fabric = launch(config)
    recordings = [record(tuned_session(seed=i), config) for i in range(2)]
    trainer = Trainer(config, recordings, fabric)
    return [trainer.step() for _ in range(N_STEPS)], fabric.global_rank, fabric.world_size


if __name__ == "__main__":
    found, rank, n_processes = losses()
    (Path(sys.argv[1]) / f"{rank}-of-{n_processes}.json").write_text(json.dumps(found))
    if distributed.is_initialized():  # a process that leaves early lets the other one abort
        distributed.barrier()
        distributed.destroy_process_group()

from __future__ import annotations

from pathlib import Path

import pytest

from decoders.train import train
from export.graphs.streaming import export_run
from streams.sessions.nwb.writer import write_session
from tests.calibration.newcomers import CONFIG, DURATION_S, new_session
from tests.decoders.sessions import tuned_session


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoders of counts and of spikes, trained on three sessions, and one of unseen neurons."""
    folder = tmp_path_factory.mktemp("adapt")
    for i, n_units in enumerate((11, 14, 12)):
        session = tuned_session(f"day-{i}", n_units, DURATION_S, seed=i)
        write_session(session, folder / f"day-{i}.nwb")
    write_session(new_session(), folder / "new.nwb")
    for name, rotary in (("counts", "false"), ("spikes", "true")):
        (folder / f"{name}.toml").write_text(CONFIG.format(rotary=rotary))
        export_run(train(folder / f"{name}.toml", out=folder / f"{name}-run"), folder / name)
    return folder

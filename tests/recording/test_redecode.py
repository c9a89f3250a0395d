"""Every decode of a recorded run is made again from the record, bit for bit."""

from __future__ import annotations

from pathlib import Path

from tests.recording.recorded import only_run, redecoded
from tests.system.conftest import DaemonStarter
from tests.system.running import keep_on
from tests.system.sources import Living


def test_a_plain_run_is_made_again_bit_for_bit(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    daemon = serve(stream, bundle, record={"enabled": True, "folder": str(folder)})
    daemon.until_validity("ok", source.send_due)
    keep_on(2.0, lambda: (source.send_due(), daemon.listen()))
    assert daemon.end() == 0
    report = redecoded(only_run(folder))
    assert report["differing"] == report["other_values"] == report["other_tokens"] == 0
    assert report["decodes"] == report["compared"] == daemon.heard.decodes[-1]["seq"]
    assert report["bit_for_bit"]
    assert report["times_real_time"] > 1

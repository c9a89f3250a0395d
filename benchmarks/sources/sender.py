"""A source in a process of its own. SIGUSR1 lets it change, and change back."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from benchmarks.sources.kinds import KINDS, pushes
from service.bench.sender import WAIT_FOR_CONSUMER_S, unit_keys
from service.signals import until_signalled
from streams.clock import MonotonicClock
from streams.lsl.inlets import quieten
from streams.lsl.outlets import SpikeOutlet


def send(name: str, kind: str, units: int, rate: float) -> None:
    """Send until SIGTERM comes; begins when somebody listens.

    Args:
        name: of the stream.
        kind: one of `KINDS`.
        units: units that fire.
        rate: spikes per second of each.
    """
    quieten()
    is_stopped, changes = until_signalled(), list[int]()

    def change(number: int, frame: FrameType | None) -> None:
        changes.append(number)

    # A signal, since only the watcher knows when the daemons have settled.
    signal.signal(signal.SIGUSR1, change)
    clock, outlet = MonotonicClock(), SpikeOutlet(name, name, unit_keys(units))
    outlet.wait_for_consumers(WAIT_FOR_CONSUMER_S)
    for push in pushes(KINDS[kind], units, rate, clock.now(), lambda: len(changes) % 2 == 1):
        clock.sleep_until(push.t_s)
        outlet.push(push.stamps, push.unit, push.complete_until_s)
        if is_stopped():
            break
    outlet.close()


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(send)
    sys.exit(app(standalone_mode=False))

"""A recording streamed over LSL at its own pace: `spikeloop replay FILE.nwb`.

All stamps are `t0 + (t_file - start) / speed` with one t0, and nothing is sent before its stamp
has passed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from streams.clock import Clock, MonotonicClock
from streams.errors import SessionError
from streams.lsl import outlets as lsl
from streams.sessions.choice import EVERYTHING, SessionChoice
from streams.sessions.replay.feeds import (
    Feed,
    Pace,
    counts_feed,
    marker_feed,
    samples_feed,
    spike_feed,
)
from streams.sessions.session import Session

EDGE_US = 50_000
PROGRESS_EVERY_S = 0.5
LEAD_IN_S = 0.25
LINGER_S = 0.5
WAIT_SLICE_S = 0.2
AXES = ("x", "y", "z")
MakeFeed = Callable[[Pace], Feed]


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress of a replay, in file seconds."""

    t_s: float
    start_s: float
    stop_s: float


def replay(
    feeds: Sequence[Feed],
    pace: Pace,
    clock: Clock,
    *,
    on_progress: Callable[[ReplayProgress], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Send every feed to its end, each on its own deadlines.

    After a stall what is overdue leaves at once, stamped as it should have been; the pace never
    shifts.

    Args:
        feeds: what to send.
        pace: how the file's time maps to the clock's.
        clock: the LSL clock.
        on_progress: called about twice a second.
        is_stopped: asked before each wait; True ends the replay early.

    Returns:
        Whether everything was sent.
    """
    next_progress_s = pace.t0_s
    while not is_stopped():
        due_s = min((feed.due_s for feed in feeds), default=math.inf)
        if due_s == math.inf:
            return True
        clock.sleep_until(due_s)
        now_s = clock.now()
        for feed in feeds:
            if feed.due_s <= now_s:
                feed.send(now_s)
        if on_progress is not None and now_s >= next_progress_s:
            reached_s = min(pace.file_s(now_s), pace.stop_us * 1e-6)
            on_progress(ReplayProgress(reached_s, pace.start_us * 1e-6, pace.stop_us * 1e-6))
            next_progress_s = now_s + PROGRESS_EVERY_S
    return False


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """Summary of what was sent.

    Attributes:
        name: the spike stream's name.
        n_units: unit keys that the stream declares.
        n_spikes: spikes sent, one by one or inside counts.
        n_counts: count bins sent.
        n_samples: samples from all behavioural signals.
        n_markers: markers sent.
        t0_s: LSL time at which `start_s` was replayed.
        start_s: first instant replayed, file seconds.
        stop_s: last instant, file seconds.
        speed: file seconds per second.
        complete: False when it was stopped early.
    """

    name: str
    n_units: int
    n_spikes: int
    n_counts: int
    n_samples: int
    n_markers: int
    t0_s: float
    start_s: float
    stop_s: float
    speed: float
    complete: bool


def run_replay(
    path: str | Path,
    *,
    speed: float = 1.0,
    start_s: float | None = None,
    stop_s: float | None = None,
    counts_ms: float | None = None,
    name: str = "",
    block_ms: float = 5.0,
    with_behavior: bool = True,
    wait_s: float = 60.0,
    on_waiting: Callable[[str], None] = lambda name: None,
    on_progress: Callable[[ReplayProgress], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    choice: SessionChoice = EVERYTHING,
) -> ReplaySummary:
    """Open the recording's streams on LSL, wait for a listener, and replay.

    Args:
        path: an NWB file.
        speed: file seconds per second; other than 1 is for counting only.
        start_s: first instant, seconds from the session's start; None for the last whole bin edge
            (50 ms, or `counts_ms`) before anything happens.
        stop_s: last instant; None for the end.
        counts_ms: send counts of bins this long instead of spikes.
        name: the streams' name; "" for the file's.
        block_ms: how often spikes and behaviour are pushed.
        with_behavior: whether behaviour and trials are sent too.
        wait_s: how long to wait until somebody listens to the spikes; 0 starts at once.
        on_waiting: told the name of the stream that waits.
        on_progress: see `replay`.
        is_stopped: see `replay`.
        choice: parts of the file to read, for example how its units are named.

    Raises:
        SessionError: the file cannot be read, the range is empty, a number is impossible, or
            nobody listened within `wait_s`.
    """
    from streams.sessions.reading import read_session  # h5py is an extra

    for what, value in (("speed", speed), ("block", block_ms), ("counts bin", counts_ms or 1.0)):
        if not (math.isfinite(value) and value > 0):
            raise SessionError(f"{what} must be a number above 0, not {value:g}")
    session, clock, name = read_session(path, choice), MonotonicClock(), name or Path(path).stem
    bin_us = round(counts_ms * 1000) if counts_ms else 0
    start_us, stop_us = chosen_range_us(session, start_s, stop_s, bin_us or EDGE_US)
    source, makers = _open_source(session, name, bin_us, speed, block_ms * 1e-3)
    if with_behavior:
        makers += _open_behavior(session, name, block_ms * 1e-3)
    if wait_s > 0:
        on_waiting(name)
        _wait_for_listener(source, name, wait_s, clock, is_stopped)
    pace = Pace(clock.now() + LEAD_IN_S, start_us, stop_us, speed)
    feeds = [make(pace) for make in makers]
    complete = replay(feeds, pace, clock, on_progress=on_progress, is_stopped=is_stopped)
    if complete:
        clock.sleep_until(clock.now() + LINGER_S)
    return _summary(name, session, feeds, pace, complete)


def chosen_range_us(
    session: Session, start_s: float | None, stop_s: float | None, edge_us: int
) -> tuple[int, int]:
    """Compute the first and last instant to replay, in the file's microseconds.

    Raises:
        SessionError: the range holds nothing; the text says where the recording lies.
    """
    spikes_us = session.spikes.t_us
    firsts = [-(-int(spikes_us[0]) // edge_us) - 1] if len(spikes_us) else []
    signals = [signal for signal in session.behavior.values() if len(signal.t_s)]
    firsts += [math.floor(float(signal.t_s[0]) * 1e6 / edge_us) for signal in signals]
    begin_us = min(firsts, default=0) * edge_us
    end_us = -(-math.ceil(session.duration_s * 1e6) // edge_us) * edge_us
    start_us = begin_us if start_s is None else round(start_s * 1e6)
    stop_us = end_us if stop_s is None else round(stop_s * 1e6)
    if start_us >= stop_us or start_us >= end_us or stop_us <= begin_us:
        raise SessionError(
            f"nothing to replay from {start_us * 1e-6:g} to {stop_us * 1e-6:g} s; "
            f"session {session.id} lies in {begin_us * 1e-6:g} to {end_us * 1e-6:g} s"
        )
    return start_us, min(stop_us, end_us)


def _open_source(
    session: Session, name: str, bin_us: int, speed: float, block_s: float
) -> tuple[lsl.Outlet, list[MakeFeed]]:
    source_id, keys, spikes = f"spikeloop-replay-{name}", session.unit_keys, session.spikes
    if bin_us:
        counts = lsl.CountsOutlet(name, f"{source_id}-counts", keys, speed * 1e6 / bin_us)
        return counts, [partial(counts_feed, counts, spikes, len(keys), bin_us)]
    source = lsl.SpikeOutlet(name, f"{source_id}-spikes", keys)
    return source, [partial(spike_feed, source, spikes, block_s)]


def _open_behavior(session: Session, name: str, block_s: float) -> list[MakeFeed]:
    source_id, makers = f"spikeloop-replay-{name}", list[MakeFeed]()
    for path, signal in session.behavior.items():
        short = path.rpartition("/")[2]
        kind = "Position" if "pos" in path.lower() else "Kinematics"
        labels = channel_labels(short, signal.values.shape[1])
        outlet = lsl.ValuesOutlet(
            f"{name} {short}", kind, f"{source_id}-{path}", labels, signal.unit
        )
        makers.append(partial(samples_feed, outlet, signal, block_s))
    if session.trials:
        markers = lsl.MarkerOutlet(f"{name} trials", f"{source_id}-trials")
        makers.append(partial(marker_feed, markers, session.trials))
    return makers


def channel_labels(name: str, n: int) -> list[str]:
    """Label a signal's channels: `position_x`, or `emg_7` where there are more than three."""
    if n == 1:
        return [name]
    return [f"{name}_{AXES[i] if n <= len(AXES) else i}" for i in range(n)]


def _wait_for_listener(
    outlet: lsl.Outlet, name: str, wait_s: float, clock: Clock, is_stopped: Callable[[], bool]
) -> None:
    deadline_s = clock.now() + wait_s
    while not outlet.wait_for_consumers(WAIT_SLICE_S) and not is_stopped():
        if clock.now() > deadline_s:
            raise SessionError(
                f"nobody listened to LSL stream {name!r} within {wait_s:g} s; start `spikeloop "
                "serve` with this name under [input], or do not wait"
            )


def _summary(
    name: str, session: Session, feeds: Sequence[Feed], pace: Pace, complete: bool
) -> ReplaySummary:
    n_sent = Counter[str]()
    for feed in feeds:
        n_sent[feed.what] += feed.n_sent
    return ReplaySummary(
        name=name,
        n_units=len(session.unit_keys),
        n_spikes=sum(feed.n_spikes for feed in feeds),
        n_counts=n_sent["counts"],
        n_samples=n_sent["samples"],
        n_markers=n_sent["markers"],
        t0_s=pace.t0_s,
        start_s=pace.start_us * 1e-6,
        stop_s=pace.stop_us * 1e-6,
        speed=pace.speed,
        complete=complete,
    )

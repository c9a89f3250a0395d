"""The simulated subject in real time: spikes, markers and cursor out on LSL, decodes in."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from streams.clock import Clock, MonotonicClock
from streams.errors import SimulationError
from streams.files import write_whole
from streams.lsl.outlets import MarkerOutlet, PositionOutlet, SpikeOutlet
from streams.messages import Float64s, Int32s, SpikeBatch
from streams.simulation.control import Block, DecodedVelocity, VelocityScore, block_of, guided
from streams.simulation.cortex import MotorCortex
from streams.simulation.subject import ReachTask, Subject, TaskBehavior, TaskName, Tick, targets_of
from streams.simulation.user import TICK_S, Control, User
from streams.wire.sockets import DecodeSubscriber

CURSOR_CHANNELS = ("cursor_x", "cursor_y", "target_x", "target_y", "targets_acquired")
_CURSOR_TICKS = 2


@dataclass(frozen=True, slots=True)
class SubjectOptions:
    """Options for a live subject.

    Attributes:
        subject_seed: which subject.
        day: the subject's day, from 0.
        n_units: how many units the array sees.
        task: which targets.
        control: "decoder" closes the loop; "hand" lets the hand move the cursor (open loop).
        decodes: the daemon's decode endpoint; needed when `control` is "decoder".
        shuffle_units: send each unit's spikes under another unit's key (the control experiment).
        assist: share in the cursor's velocity that leads straight to the target, 0 to 1.
        name: the LSL spike stream's name; markers and cursor append "-markers", "-cursor".
        seconds: ends by itself after this long; None to run until stopped.
        seed: for this session's noise and targets.
        delay_s: how much later than their time spikes leave, as from a slow acquisition program.
        summary_path: where to write the summary as JSON at the end.
    """

    subject_seed: int = 1
    day: int = 1
    n_units: int = 96
    task: TaskName = "centre-out"
    control: Control = "decoder"
    decodes: str = ""
    shuffle_units: bool = False
    assist: float = 0.0
    name: str = "spikeloop-subject"
    seconds: float | None = None
    seed: int = 0
    delay_s: float = 0.0
    summary_path: Path | None = None


@dataclass(frozen=True, slots=True)
class SubjectSummary:
    """Result of a session.

    Attributes:
        targets_acquired: how many.
        targets_shown: how many ended, acquired or not.
        acquisition_s: from each acquired target's appearance until it was held.
        r2_velocity: decoded against the velocity that drove the spikes, x and y; None when
            nothing was decoded.
        decodes_scored: how many decodes that is over.
        spikes_sent: how many.
        shuffle_units: as asked for.
        seconds: how long the subject ran.
        engaged_s: seconds in which the task ran.
    """

    targets_acquired: int
    targets_shown: int
    acquisition_s: tuple[float, ...]
    r2_velocity: tuple[float, float] | None
    decodes_scored: int
    spikes_sent: int
    shuffle_units: bool
    seconds: float
    engaged_s: float


def run_subject(
    options: SubjectOptions, stop: Callable[[], bool], clock: Clock | None = None
) -> SubjectSummary:
    """Live as the subject until `stop()` or the time is over; writes the summary where asked.

    Args:
        options: what to simulate.
        stop: asked every 5 ms.
        clock: LSL's clock; the monotonic clock unless given.

    Raises:
        SimulationError: options that make no sense together.
    """
    _check(options)
    subscriber = None
    if options.control == "decoder":
        subscriber = DecodeSubscriber(options.decodes, ("decode", "event"))
    try:
        live = LiveSubject(options, subscriber, clock or MonotonicClock())
        try:
            summary = live.run(stop)
        finally:
            live.outlets.close()
    finally:
        if subscriber is not None:
            subscriber.close()
    if options.summary_path is not None:
        write_whole(options.summary_path, json.dumps(asdict(summary)) + "\n")
    return summary


class LiveSubject:
    """One subject, paced by a clock.

    Args:
        options: what to simulate.
        decodes: where decodes come from; None under hand control.
        clock: LSL's clock.
    """

    def __init__(
        self, options: SubjectOptions, decodes: DecodeSubscriber | None, clock: Clock
    ) -> None:
        self._options, self._decodes, self._clock = options, decodes, clock
        cortex = MotorCortex(options.subject_seed, options.day, options.n_units, seed=options.seed)
        self._task = ReachTask(targets_of(options.task, options.seed))
        behavior = TaskBehavior(User(options.seed, options.control), self._task, options.control)
        self._subject = Subject(cortex, behavior)
        self._behavior, self._cortex = behavior, cortex
        self._decoded, self._score = DecodedVelocity(), VelocityScore()
        self.outlets = SubjectOutlets(options, cortex.unit_keys)
        self._n_ticks = self._n_engaged = 0
        kind = "open-loop" if options.control == "hand" else "closed-loop"
        self._block = Block(kind, options.assist)

    @property
    def engaged(self) -> bool:
        """True while the task runs; under a decoder's control from its first trustworthy decode."""
        connected = self._block.kind == "open-loop" or self._decoded.connected
        return self._block.kind != "rest" and connected

    def run(self, stop: Callable[[], bool]) -> SubjectSummary:
        """Tick on absolute deadlines; a late tick delays no later one."""
        t0_s = self._clock.now()
        n_most = math.inf if self._options.seconds is None else self._options.seconds / TICK_S
        while self._n_ticks < n_most and not stop():
            self._clock.sleep_until(t0_s + (self._n_ticks + 1) * TICK_S)
            self._tick(t0_s)
        return self._summary()

    def _tick(self, t0_s: float) -> None:
        self._listen()
        now_s = t0_s + (self._n_ticks + 1) * TICK_S
        engaged = self.engaged
        velocity = guided(
            self._decoded.at(self._clock.now()),
            self._behavior.cursor,
            self._task.target,
            self._block.assist,
        )
        tick, spikes = self._subject.step(velocity, engaged=engaged)
        self._n_ticks += 1
        self._n_engaged += engaged
        self._score.drove(now_s, tick.velocity)
        self.outlets.push(tick, spikes, t0_s, self._task.n_acquired)

    def _listen(self) -> None:
        while self._decodes is not None and (message := self._decodes.receive(0.0)) is not None:
            topic, content = message
            if topic == "event":
                self._obey(block_of(content))
                continue
            estimate = self._decoded.take(content, self._clock.now())
            if estimate is not None:
                self._score.expect(estimate)

    def _obey(self, block: Block | None) -> None:
        """Go on as the block says."""
        if block is None:
            return
        was_hand, is_hand = (one.kind == "open-loop" for one in (self._block, block))
        self._block = block
        if was_hand != is_hand:
            control: Control = "hand" if is_hand else "decoder"
            self._behavior.switch(User(self._options.seed, control), control)

    def _summary(self) -> SubjectSummary:
        return SubjectSummary(
            targets_acquired=self._task.n_acquired,
            targets_shown=len(self._task.trials),
            acquisition_s=tuple(round(one, 3) for one in self._task.acquisition_s),
            r2_velocity=self._score.r2(),
            decodes_scored=self._score.n_scored,
            spikes_sent=self._cortex.n_spikes,
            shuffle_units=self._options.shuffle_units,
            seconds=self._n_ticks * TICK_S,
            engaged_s=self._n_engaged * TICK_S,
        )


class SubjectOutlets:
    """The subject's streams: spikes, markers, cursor.

    Args:
        options: names and whether units are shuffled.
        keys: the units' keys.
    """

    def __init__(self, options: SubjectOptions, keys: tuple[str, ...]) -> None:
        name = options.name
        self._key_of = shuffled(len(keys), options.seed) if options.shuffle_units else None
        self._n_late = round(options.delay_s / TICK_S)
        self._delayed: deque[tuple[Float64s, Int32s, float]] = deque()
        self._spikes = SpikeOutlet(name, name, keys, simulated=True)
        self._markers = MarkerOutlet(f"{name}-markers", f"{name}-markers")
        self._cursor = PositionOutlet(f"{name}-cursor", f"{name}-cursor", CURSOR_CHANNELS, "cm")
        self._n_ticks = 0

    def push(self, tick: Tick, spikes: SpikeBatch, t0_s: float, n_acquired: int) -> None:
        """Publish one tick, with stamps on the clock that `t0_s` is on."""
        self._n_ticks += 1
        t_s = t0_s + tick.t_s
        unit = spikes.unit if self._key_of is None else self._key_of[spikes.unit]
        stamps_s = t0_s + spikes.t_us.astype(np.float64) * 1e-6
        self._delayed.append((stamps_s, unit, t_s))
        if len(self._delayed) > self._n_late:
            self._spikes.push(*self._delayed.popleft())
        for event in tick.events:
            self._markers.push(event, t_s)
        if self._n_ticks % _CURSOR_TICKS == 0:
            target = (math.nan, math.nan) if tick.target is None else tick.target
            self._cursor.push([*tick.cursor, *target, float(n_acquired)], t_s)

    def close(self) -> None:
        """Take the streams off the network."""
        for outlet in (self._spikes, self._markers, self._cursor):
            outlet.close()


def shuffled(n_units: int, seed: int) -> np.ndarray:
    """Another unit for each unit: a random cycle through all, so that none keeps its own key."""
    order = np.random.default_rng([seed, 13]).permutation(n_units)
    key_of = np.empty(n_units, np.int32)
    key_of[order] = np.roll(order, 1)
    return key_of


def _check(options: SubjectOptions) -> None:
    if options.control == "decoder" and not options.decodes:
        raise SimulationError(
            "a subject in closed loop needs the address of the decodes; give one such as "
            "tcp://127.0.0.1:5570, or let the hand move the cursor"
        )
    if options.delay_s < 0.0:
        raise SimulationError(f"spikes cannot leave before their time: delay_s {options.delay_s}")
    if not 0.0 <= options.assist <= 1.0:
        raise SimulationError(f"assist is a share between 0 and 1, not {options.assist}")

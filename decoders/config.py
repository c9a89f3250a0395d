"""The training config: one TOML file, checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from decoders.errors import ConfigError
from streams.config_file import check_config, read_toml
from streams.sessions.choice import FileChoice, Section, SessionChoice

Positive = Annotated[float, pydantic.Field(gt=0)]
Share = Annotated[float, pydantic.Field(ge=0, lt=1)]
Natural = Annotated[int, pydantic.Field(ge=1)]
EXAMPLE = "configs/train-demo.toml"


class Simulated(Section):
    """A simulated subject's days, written into the run directory as NWB before training.

    `styles`: how the hand moves; one session each per day, `minutes` long.
    """

    subject: Annotated[int, pydantic.Field(ge=0)]
    days: tuple[int, ...]
    minutes: Positive
    n_units: Natural = 96
    task: Literal["centre-out", "random"] = "random"
    styles: tuple[Literal["reach", "steer"], ...] = ("reach",)


class Sessions(FileChoice):
    """Choice of recordings, and what is read from them.

    `same_array`: a unit key names the same channel in every session, so that its embedding is a
    part shared between sessions plus the session's own. `mask_for`: samples where `mask` is 0 are
    not learnt from, not scored, or neither. `falcon`: read as the FALCON benchmark reads that
    task's files: counts in 20 ms bins, `u0` the first unit row, scored where `eval_mask` is 1.
    """

    glob: tuple[str, ...] = ()
    simulated: Simulated | None = None
    same_array: bool = False
    max_gap_s: Positive = 0.1
    mask_for: Literal["both", "train", "score"] = "both"

    def choice(self, behavior: Sequence[str] | None) -> SessionChoice:
        """Parts to read from each recording, with these behaviours; None reads all."""
        return SessionChoice(
            behavior=None if behavior is None else tuple(dict.fromkeys(behavior)),
            **{name: getattr(self, name) for name in FileChoice.model_fields},
        )

    @pydantic.model_validator(mode="after")
    def _falcon_says_all(self) -> Sessions:
        told = {k for k, value in self if value != Sessions.model_fields[k].get_default()}
        others = ", ".join(sorted(told - {"glob", "same_array", "max_gap_s", "falcon"}))
        if self.falcon and others:
            raise ValueError(f"falcon = {self.falcon!r} says what is read: leave out {others}")
        return self


class Split(Section):
    """The train and the test part, by trials or by files.

    `train`, `test`: conditions on the trial table's columns, as "split == 'train'".
    `test_files`: patterns for files that are tested whole and never learnt from.
    """

    train: str = ""
    test: str = ""
    test_files: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Split:
        by_trials = bool(self.train) and bool(self.test)
        if by_trials == bool(self.test_files) or bool(self.train) != bool(self.test):
            raise ValueError("give train and test (conditions on trials), or test_files")
        return self


def written_out(split: str | Split) -> str | Split:
    """`trials:COLUMN` as conditions; any other split as it is."""
    if isinstance(split, str) and split.startswith("trials:"):
        column = split.removeprefix("trials:")
        return Split(train=f"{column} == 'train'", test=f"{column} in ['val', 'test']")
    return split


SplitText = Annotated[str, pydantic.Field(pattern=r"^(last:0\.\d+|none|trials:\w+)$")]
SPLIT_KINDS = ("split as a text", "split as a table")


def _split_kind(given: object) -> str:
    return SPLIT_KINDS[0] if isinstance(given, str) else SPLIT_KINDS[1]


SplitChoice = Annotated[
    Annotated[SplitText, pydantic.Tag(SPLIT_KINDS[0])]
    | Annotated[Split, pydantic.Tag(SPLIT_KINDS[1])],
    pydantic.Discriminator(_split_kind),
]


class Beat(Section):
    """Bins; `rotary` gives spikes their time inside the bin, and is off for sources of counts."""

    hop_ms: Positive = 20.0
    bin_ms: Positive = 20.0
    rotary: bool = True

    @pydantic.model_validator(mode="after")
    def _overlap(self) -> Beat:
        if self.bin_ms < self.hop_ms:
            raise ValueError(f"bin_ms ({self.bin_ms}) must not be below hop_ms ({self.hop_ms})")
        return self


class OutputChoice(Section):
    """One output: its behaviour by NWB path, unit on the wire, lag and policy when not ok.

    A container with several one-dimensional series, as in FALCON's M1, is one output.

    `lag_s` shifts the target: the decode at `t_window` with lead 0 estimates the behaviour at
    `t_window + lag_s`. `classes` > 0 reads the behaviour as class numbers 0 .. classes - 1.
    """

    name: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_]*$")]
    behavior: str
    unit: str = ""
    lag_s: float = 0.0
    safe: Literal["zero", "hold", "nan"] = "zero"
    weight: Positive = 1.0
    classes: Annotated[int, pydantic.Field(ge=0)] = 0


class Lead(Section):
    """Leads that the network learns; with min = max = 0 it learns the present only."""

    min_s: float = 0.0
    max_s: float = 0.0

    @pydantic.model_validator(mode="after")
    def _holds_zero(self) -> Lead:
        if not self.min_s <= 0.0 <= self.max_s:
            raise ValueError(f"the range {self.min_s} .. {self.max_s} must hold 0")
        return self


class Network(Section):
    """Network shape."""

    n_latents: Natural = 8
    n_frequencies: Natural = 3
    d_unit: Natural = 64
    d_value: Natural = 64
    d_model: Natural = 128
    d_memory: Natural = 256
    d_readout: Natural = 64


class Training(Section):
    """The recipe; lengths in seconds so that it does not depend on the hop.

    `cuts`: sessions with true spike times are learnt from in so many versions, with bins that begin
    elsewhere within the hop and spikes jittered by `jitter_ms`. `lanes`: windows in a batch.
    `pieces`: segments that a window is joined from. `newcomers`: chance that a lane's units are
    treated as unseen. `made_up`: synthetic sessions beside each recording, for a decoder of few
    sessions that is to be adapted to unseen units.
    """

    steps: Natural = 600
    lanes: Natural = 32
    window_s: Positive = 3.0
    context_s: Positive = 1.0
    learning_rate: Positive = 2e-3
    warmup: Share = 0.1
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 1e-2
    dropout: Share = 0.1
    unit_dropout: Share = 0.3
    session_dropout: Share = 0.1
    newcomers: Share = 0.25
    made_up: Annotated[int, pydantic.Field(ge=0)] = 0
    cuts: Natural = 4
    jitter_ms: Annotated[float, pydantic.Field(ge=0)] = 1.0
    pieces: Natural = 1
    blind_s: Annotated[float, pydantic.Field(ge=0)] = 0.2
    reset: Share = 0.1
    clip: Positive = 1.0
    average: Share = 0.99
    checkpoint_every: Natural = 500
    evaluate_every: Natural = 500


POYO_FAMILY = "poyo"
DEFAULT_FAMILY = "streaming"
"""Family of a config without a section that chooses another."""
POYO_USES = {"steps", "unit_dropout", "cuts", "jitter_ms", "clip", "average"}
POYO_USES |= {"checkpoint_every", "evaluate_every"}


class FamilySection(Section):
    """Section that chooses a decoder family, and bears its name."""

    def faults(self, config: TrainConfig) -> list[str]:
        """Name what the config asks for and this family cannot do."""
        return []


class PoyoChoice(FamilySection):
    """Train POYO on whole windows instead of the streaming decoder; by default the published 1.3M.

    [training] keys in use: see `POYO_USES`. `end_weight`: loss share at the window's
    end, where the live decoder reads; the rest is spread over the window's hops, as POYO does.
    `hold`: training share at the full rate, a cosine follows. `time_budget_s`: train for
    this long instead of [training] steps; the rate follows the time that has passed. On
    one CPU thread it is processor time, so that other processes do not shorten the training.
    """

    sequence_s: Annotated[float, pydantic.Field(gt=0, le=4)] = 1.0
    latent_step_s: Positive = 0.125
    n_latents_per_step: Natural = 16
    dim: Natural = 64
    depth: Natural = 6
    dim_head: Annotated[int, pydantic.Field(ge=4, multiple_of=4)] = 64
    cross_heads: Natural = 2
    self_heads: Natural = 8
    ffn_dropout: Share = 0.2
    lin_dropout: Share = 0.4
    atn_dropout: Share = 0.0
    batch: Natural = 8
    learning_rate: Positive = 3e-4
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 1e-4
    warmup: Share = 0.05
    hold: Share = 0.5
    end_weight: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.2
    time_budget_s: Positive | None = None

    def faults(self, config: TrainConfig) -> list[str]:
        """Name what the config asks for and POYO cannot do."""
        hops = self.sequence_s * 1000 / config.beat.hop_ms
        told = {name for name, value in config.training if value != getattr(Training(), name)}
        unused = sorted(told - POYO_USES)
        faults = {
            f"[training] {', '.join(unused)} do not concern [poyo]": bool(unused),
            "[network] and [start] do not concern [poyo]": config.network != Network()
            or config.start is not None,
            "[poyo] reads continuous outputs only": any(out.classes for out in config.outputs),
            "[poyo] looks ahead by an output's lag_s, not by [lead]": config.lead != Lead(),
            "[poyo] needs bin_ms = hop_ms": config.beat.bin_ms != config.beat.hop_ms,
            "[poyo] sequence_s must be a whole number of hops": abs(hops - round(hops)) > 1e-6,
        }
        return [fault for fault, is_so in faults.items() if is_so]


class Devices(Section):
    """Handed to Lightning Fabric; several processes start with `torchrun`."""

    accelerator: Literal["cpu", "cuda", "auto"] = "cpu"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: Natural = 1


class Start(Section):
    """Begin from an earlier run; `freeze` leaves only embeddings and session vectors to learn."""

    run: str
    freeze: bool = False


class TrainConfig(Section):
    """A training run."""

    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    sessions: Sessions
    outputs: tuple[OutputChoice, ...] = pydantic.Field(min_length=1)
    beat: Beat = Beat()
    lead: Lead = Lead()
    split: SplitChoice = "last:0.2"
    network: Network = Network()
    poyo: PoyoChoice | None = None
    training: Training = Training()
    devices: Devices = Devices()
    start: Start | None = None

    @property
    def session_choice(self) -> SessionChoice:
        """Parts to read from each recording."""
        return self.sessions.choice([output.behavior for output in self.outputs])

    @property
    def family(self) -> str:
        """Decoder family to train: the one with its own section, if any."""
        chosen = [name for name, value in self if isinstance(value, FamilySection)]
        return chosen[0] if chosen else DEFAULT_FAMILY

    @pydantic.field_validator("outputs")
    @classmethod
    def _names_differ(cls, outputs: tuple[OutputChoice, ...]) -> tuple[OutputChoice, ...]:
        """Refuse two outputs of one name: the export could not tell them apart."""
        names = [output.name for output in outputs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two outputs are named {', '.join(twice)}")
        return outputs

    @pydantic.model_validator(mode="after")
    def _beats_are_falcons(self) -> TrainConfig:
        """Refuse beats and spike times that FALCON's 20 ms counts do not have."""
        beat = self.beat
        if self.sessions.falcon and (beat.hop_ms != 20.0 or beat.bin_ms % 20.0 or beat.rotary):
            raise ValueError(
                "[sessions] falcon gives counts of 20 ms: set [beat] hop_ms = 20, bin_ms = 20 (or "
                "several times that) and rotary = false"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _family_can(self) -> TrainConfig:
        """Refuse what the chosen family cannot do, rather than pass over it."""
        for _, section in self:
            faults = section.faults(self) if isinstance(section, FamilySection) else []
            if faults:
                raise ValueError("; ".join(faults))
        return self


def load_config(path: Path) -> TrainConfig:
    """Read and check a training config.

    Raises:
        ConfigError: unreadable, not TOML, or a key or value that cannot be.
    """
    return parse_config(read_toml(path, ConfigError, EXAMPLE), str(path))


def load_sessions(path: Path) -> Sessions:
    """Read a TOML file's `[sessions]`; other tables are left alone.

    Raises:
        ConfigError: unreadable, not TOML, without `[sessions]`, or a key or value that cannot be.
    """
    fields = read_toml(path, ConfigError, EXAMPLE)
    if "sessions" not in fields:
        raise ConfigError(f"{path} has no table [sessions], which says what of a file is read")
    return parse_sessions(fields["sessions"], str(path))


class _SessionsAlone(Section):
    """The table that `load_sessions` reads."""

    sessions: Sessions


def parse_sessions(fields: Any, source: str) -> Sessions:
    """Check `[sessions]`; see `parse_config`."""
    return check_config({"sessions": fields}, _SessionsAlone, source, ConfigError).sessions


def parse_config(fields: dict[str, Any], source: str) -> TrainConfig:
    """Check a training config's fields.

    Args:
        fields: as read from TOML or JSON.
        source: where they came from, for the error.

    Raises:
        ConfigError: names source, key and the nearest valid key.
    """
    return check_config(fields, TrainConfig, source, ConfigError, SPLIT_KINDS)

"""The daemon's config file: defaults here, choices in TOML, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, field_validator

from service.errors import ConfigError
from streams.config_file import Model, Section, SpikesInput, check_config, read_config

Finite = Annotated[float, Field(allow_inf_nan=False)]


class InputConfig(SpikesInput):
    """`[input]`: the stream, how much it may bring, and how long it is looked for.

    With `simulate_if_absent` a simulated subject is decoded where no stream answers.
    """

    source_id: str = ""
    budget_spikes_per_s: int = Field(50_000, ge=100, le=2_000_000)
    wait_s: float = Field(5.0, gt=0, le=3600)
    simulate_if_absent: bool = False


class DecoderConfig(Section):
    """`[decoder]`: which bundle, and what runs it.

    A backend that is not open after `open_most_s` is given up, at the start and in a swap. With
    `require_signature` no bundle is opened that none of these keys signed.
    """

    bundle: str = Field("bundles/current", min_length=1)
    backend: str = "auto"
    fallback: tuple[str, ...] = Field((), strict=False)
    incoming: str = Field("bundles/incoming", min_length=1)
    lead_s: float | None = Field(None, ge=-1, le=1)
    open_most_s: float = Field(600.0, ge=1, le=86400)
    require_signature: tuple[str, ...] = Field((), strict=False)


class BeatConfig(Section):
    """`[beat]`: when beats fall. `hop_ms` must be the bundle's; leave it out to take that."""

    hop_ms: float | None = Field(None, ge=1, le=1000)
    settle_ms: float | Literal["auto"] = Field("auto")
    settle_most_ms: float = Field(500.0, ge=1, le=10_000)
    cut: Literal["auto", "settled", "arrived"] = "auto"
    rehearse: bool = True
    token_cap: int | None = Field(None, ge=1)
    shed_tokens: bool = True


class OutputConfig(Section):
    """`[output]`: where decodes leave; beyond loopback only with keys.

    `clients` lists whose keys may connect, each with a role; without it the client of the key
    folder may do everything.
    """

    decode: str = "tcp://127.0.0.1:5570"
    control: str = "tcp://127.0.0.1:5571"
    keys: str = ""
    clients: str = ""
    format: Literal["json", "packed"] = "json"
    lsl_outlet: bool = True
    lsl_name: str = Field("spikeloop", min_length=1)


class ShapingConfig(Section):
    """`[shaping]`: what is done to velocities (outputs whose safe value is zero), and bounds."""

    gain: Finite = Field(1.0, ge=0, le=100)
    smoothing: Finite = Field(0.0, ge=0, lt=1)
    bias: tuple[Finite, ...] = Field((), strict=False)
    speed_power: Finite = Field(1.0, ge=0.1, le=4)
    speed_ref: Finite = Field(1.0, ge=1e-3)
    max_speed: Finite = Field(0.0, ge=0)
    bounds: dict[str, Annotated[tuple[Finite, Finite], Strict(False)]] = Field(default_factory=dict)

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, bounds: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in bounds.items():
            if not low < high:
                raise ValueError(f"the bounds of {name!r} must be [low, high] with low < high")
        return bounds


class RealtimeConfig(Section):
    """`[realtime]`: what to ask of the operating system for the beat, and those it waits for."""

    priority: int = Field(0, ge=0, le=99)
    cores: tuple[int, ...] = Field((), strict=False)
    lock_memory: bool = False


class LogConfig(Section):
    """`[log]`: where dumps of the flight recorder go when a beat is missed."""

    flights: str = ""


class RecordConfig(Section):
    """`[record]`: the recording of the run, and how much all recordings may hold."""

    enabled: bool = True
    folder: str = Field("runs/recordings", min_length=1)
    limit_gb: Finite = Field(50.0, ge=0)
    part_mb: Finite = Field(64.0, ge=0.01, le=1024)
    behavior: tuple[Annotated[str, Field(pattern=r"^[^:@\s]+(:.*)?$")], ...] = Field(
        (), strict=False
    )


class ServeConfig(Section):
    """`configs/serve.toml`."""

    input: InputConfig = InputConfig()
    decoder: DecoderConfig = DecoderConfig()
    beat: BeatConfig = BeatConfig()
    output: OutputConfig = OutputConfig()
    shaping: ShapingConfig = ShapingConfig()
    realtime: RealtimeConfig = RealtimeConfig()
    log: LogConfig = LogConfig()
    record: RecordConfig = RecordConfig()

    @field_validator("record", mode="before")
    @classmethod
    def _record_or_not(cls, given: Any) -> Any:
        """Let `record = false` stand for a section with `enabled = false`."""
        return {"enabled": given} if isinstance(given, bool) else given


def load_config(path: Path, model: type[Model]) -> Model:
    """Read a TOML file into its model.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type or an impossible value.
    """
    return read_config(path, model, ConfigError, "configs/serve.toml")


def parse_config(table: dict[str, Any], model: type[Model], source: str) -> Model:
    """Validate what a TOML file said; `source` names it in errors.

    Raises:
        ConfigError: see `load_config`.
    """
    return check_config(table, model, source, ConfigError)

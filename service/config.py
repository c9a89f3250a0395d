"""The daemon's config file: defaults here, choices in TOML, unknown keys refused."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator

from service.errors import ConfigError


class Section(BaseModel):
    """A table of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class InputConfig(Section):
    """`[input]`: exactly one stream must match.

    `columns` names the channels of an event stream whose labels do not tell; `ignore_units` leaves
    out unit numbers (of any channel), keys or labels; `stamps = "arrival"` takes the time of
    arrival for the stamps of a sender whose clock is not LSL's.
    """

    type: str = Field("Spikes", min_length=1)
    name: str = ""
    source_id: str = ""
    hostname: str = ""
    array: str = Field("", pattern=r"^[^:/]*$")
    columns: tuple[str, ...] = Field((), strict=False)
    ignore_units: tuple[int | str, ...] = Field((), strict=False)
    stamps: Literal["lsl", "arrival"] = "lsl"
    budget_spikes_per_s: int = Field(50_000, ge=100, le=2_000_000)
    wait_s: float = Field(5.0, gt=0, le=3600)


class DecoderConfig(Section):
    """`[decoder]`: which bundle, and what runs it."""

    bundle: str = Field("bundles/current", min_length=1)
    backend: str = "onnxruntime-cpu"
    fallback: tuple[str, ...] = Field((), strict=False)
    incoming: str = Field("bundles/incoming", min_length=1)
    lead_s: float | None = Field(None, ge=-1, le=1)


class BeatConfig(Section):
    """`[beat]`: when beats fall. `hop_ms` must be the bundle's; leave it out to take that."""

    hop_ms: float | None = Field(None, ge=1, le=1000)
    settle_ms: float | Literal["auto"] = Field("auto")
    settle_most_ms: float = Field(500.0, ge=1, le=10_000)
    cut: Literal["settled", "arrived"] = "settled"
    rehearse: bool = True
    token_cap: int | None = Field(None, ge=1)
    shed_tokens: bool = True


class OutputConfig(Section):
    """`[output]`: where decodes leave; beyond loopback only with keys."""

    decode: str = "tcp://127.0.0.1:5570"
    control: str = "tcp://127.0.0.1:5571"
    keys: str = ""
    format: Literal["json"] = "json"
    lsl_outlet: bool = True
    lsl_name: str = Field("spikeloop", min_length=1)


class ShapingConfig(Section):
    """`[shaping]`: what is done to velocities (outputs whose safe value is zero), and bounds."""

    gain: float = Field(1.0, ge=0, le=100)
    smoothing: float = Field(0.0, ge=0, lt=1)
    bias: tuple[float, ...] = Field((), strict=False)
    speed_power: float = Field(1.0, ge=0.1, le=4)
    speed_ref: float = Field(1.0, ge=1e-3)
    max_speed: float = Field(0.0, ge=0)
    bounds: dict[str, Annotated[tuple[float, float], Strict(False)]] = {}

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


class ServeConfig(Section):
    """`configs/serve.toml`."""

    input: InputConfig = InputConfig()
    decoder: DecoderConfig = DecoderConfig()
    beat: BeatConfig = BeatConfig()
    output: OutputConfig = OutputConfig()
    shaping: ShapingConfig = ShapingConfig()
    realtime: RealtimeConfig = RealtimeConfig()
    log: LogConfig = LogConfig()


Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path, model: type[Model]) -> Model:
    """Read a TOML file into its model.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type or an impossible value.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no config file {path}; configs/serve.toml is one to start from"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not TOML: {err}") from err
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror}") from err
    return parse_config(table, model, str(path))


def parse_config(table: dict[str, Any], model: type[Model], source: str) -> Model:
    """Validate what a TOML file said; `source` names it in errors.

    Raises:
        ConfigError: see `load_config`.
    """
    try:
        return model.model_validate(table)
    except ValidationError as err:
        lines = [_explain(detail, model) for detail in err.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from err


def _explain(detail: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        names = _valid_names(model, detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"valid are: {', '.join(sorted(names))}"
        return f"unknown key {where!r}; {hint}"
    return f"{where}: {detail['msg']} (got {detail['input']!r})"


def _valid_names(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(model.model_fields)

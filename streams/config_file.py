"""Config files: TOML checked by a model; an error names file, key and the nearest valid key."""

from __future__ import annotations

import difflib
import tomllib
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# Below this likeness a hint would mislead, and all valid keys are listed.
LIKENESS = 0.4
Model = TypeVar("Model", bound=BaseModel)
MakeError = Callable[[str], Exception]


class Section(BaseModel):
    """A table in the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SpikesInput(Section):
    """The LSL stream of spikes, for the daemon and the wizard alike; exactly one must match.

    `columns` names the channels of an event stream whose labels do not tell; `ignore_units` leaves
    out unit numbers (of any channel), keys or labels; `stamps = "arrival"` takes the time of
    arrival for the stamps of a sender whose clock is not LSL's.
    """

    type: str = Field("Spikes", min_length=1)
    name: str = ""
    hostname: str = ""
    array: str = Field("", pattern=r"^[^:/]*$")
    columns: tuple[str, ...] = Field((), strict=False)
    ignore_units: tuple[int | str, ...] = Field((), strict=False)
    stamps: Literal["lsl", "arrival"] = "lsl"


def read_config(path: Path, model: type[Model], error: MakeError, example: str) -> Model:
    """Read a TOML file into its model; see `read_toml` and `check_config`."""
    return check_config(read_toml(path, error, example), model, str(path), error)


def read_toml(path: Path, error: MakeError, example: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: the file.
        error: makes the exception that the caller raises for its users.
        example: a file to start from.

    Raises:
        Exception: by `error`: no such file, unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"no config file {path}; {example} is one to start from") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise error(f"{path} is not TOML: {err}") from err
    except OSError as err:
        raise error(f"cannot read {path}: {err.strerror}") from err


def check_config(
    fields: Mapping[str, Any],
    model: type[Model],
    source: str,
    error: MakeError,
    tags: Collection[str] = (),
) -> Model:
    """Validate what a config says.

    Args:
        fields: as read from TOML or JSON.
        model: its tables and keys.
        source: where they came from, for the error.
        error: makes the exception that the caller raises for its users.
        tags: a union's, which pydantic names among the keys.

    Raises:
        Exception: by `error`: an unknown key, a wrong type or an impossible value.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as err:
        lines = [_explain(problem, model, tags) for problem in err.errors()]
        raise error(f"{source}: " + "; ".join(lines)) from err


def _explain(problem: Any, model: type[BaseModel], tags: Collection[str]) -> str:
    parts = [part for part in problem["loc"] if part not in tags]
    where = ".".join(map(str, parts)) or "the file"
    if problem["type"] != "extra_forbidden":
        # A whole table would bury the message.
        is_table = isinstance(problem["input"], Mapping)
        return f"{where}: {problem['msg']}" + ("" if is_table else f" (got {problem['input']!r})")
    for part in parts[:-1]:
        if part in model.model_fields:
            model = _section(model.model_fields[part].annotation) or model
    near = difflib.get_close_matches(str(parts[-1]), model.model_fields, 1, LIKENESS)
    valid = f"valid are: {', '.join(sorted(model.model_fields))}"
    return f"unknown key {where!r}; " + (f"did you mean {near[0]!r}?" if near else valid)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Find the section in a field's type, as in `tuple[OutputChoice, ...]` or `Start | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, typing.get_args(annotation))), None)

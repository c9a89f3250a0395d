"""Config files: TOML checked by a model; an error names file, key and the nearest valid key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

# Below this likeness a hint would mislead, and all valid keys are listed.
LIKENESS = 0.4
Model = TypeVar("Model", bound=BaseModel)
MakeError = Callable[[str], Exception]


class Section(BaseModel):
    """A table in the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def read_config(path: Path, model: type[Model], error: MakeError, example: str) -> Model:
    """Read a TOML file into its model.

    Args:
        path: the file.
        model: its tables and keys.
        error: makes the exception that the caller raises for its users.
        example: a file to start from.

    Raises:
        Exception: by `error`: no such file, not TOML, an unknown key, a wrong type or an
            impossible value.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"no config file {path}; {example} is one to start from") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise error(f"{path} is not TOML: {err}") from err
    except OSError as err:
        raise error(f"cannot read {path}: {err.strerror}") from err
    return check_config(fields, model, str(path), error)


def check_config(
    fields: Mapping[str, Any], model: type[Model], source: str, error: MakeError
) -> Model:
    """Validate what a config says; `source` names it in errors.

    Raises:
        Exception: by `error`; see `read_config`.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as err:
        lines = [_explain(problem, model) for problem in err.errors()]
        raise error(f"{source}: " + "; ".join(lines)) from err


def _explain(problem: Any, model: type[BaseModel]) -> str:
    *tables, key = problem["loc"] or ("the file",)
    where = ".".join(map(str, (*tables, key)))
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']} (got {problem['input']!r})"
    names = _valid_names(model, tables)
    near = difflib.get_close_matches(str(key), names, 1, LIKENESS)
    hint = f"did you mean {near[0]!r}?" if near else f"valid are: {', '.join(sorted(names))}"
    return f"unknown key {where!r}; {hint}"


def _valid_names(model: type[BaseModel], tables: list[Any]) -> list[str]:
    for table in tables:
        field = model.model_fields.get(str(table))
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(model.model_fields)

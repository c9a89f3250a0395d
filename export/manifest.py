"""The bundle's `manifest.json`: a decoder's outputs, units and times, and its checks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from export.errors import BundleError

FORMAT = 1
TOKEN_INPUTS = ("unit", "t_rel", "count")

ATOL_FP32, ATOL_REDUCED = 1e-4, 1e-1
MOST_OFF_FP32, MOST_OFF_REDUCED = 0.01, 0.5
"""A bundle may allow itself an error of at most this share of its outputs' range: a bound that it
chose freely would let any weights pass."""
MOST_TOKENS = 2**20
"""Tokens in a bin: buffers of that size are made when a backend is opened."""

Name = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """Base of every part of a manifest: frozen, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Output(Part):
    """One output of the decoder.

    Attributes:
        name: the graph output's name.
        dims: its length.
        unit: physical unit, e.g. "cm/s".
        safe: what is published when a decode is not `ok`.
        low: (dims,) smallest values seen in training, physical units.
        high: (dims,) largest.
    """

    name: Name
    dims: Annotated[int, Field(ge=1)]
    unit: str
    safe: Literal["zero", "hold", "nan"] = "zero"
    low: tuple[Finite, ...]
    high: tuple[Finite, ...]

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if not len(self.low) == len(self.high) == self.dims:
            raise ValueError(f"`low` and `high` of {self.name!r} need {self.dims} values each")
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"`low` of {self.name!r} must lie below `high` in each dimension")
        return self


class UnitRow(Part):
    """A unit key and its row in the tables."""

    key: Name
    row: Annotated[int, Field(ge=0)]


class LeadRange(Part):
    """Leads that the decoder can estimate at, seconds after the window's end; the future is > 0."""

    min: Finite
    max: Finite
    default: Finite

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest."""
        return self.min, self.max

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.default <= self.max:
            raise ValueError("`default` must lie between `min` and `max`")
        return self


class Tensor(Part):
    """A graph input or output; a name in `shape` stands for a length that varies."""

    name: Name
    dtype: Literal["float16", "float32", "int32", "int64"]
    shape: tuple[int | str, ...]


class Graph(Part):
    """The graph's signature.

    Attributes:
        opset: of ONNX's own domain.
        inputs: in the graph's order.
        outputs: in the graph's order.
        memory: inputs that carry memory; the output of each has its name and `_out`.
    """

    opset: Annotated[int, Field(ge=1)]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    memory: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        inputs = {tensor.name: tensor for tensor in self.inputs}
        outputs = {tensor.name: tensor for tensor in self.outputs}
        lacking = [name for name in (*TOKEN_INPUTS, "lead_s") if name not in inputs]
        if lacking:
            raise ValueError(f"the graph has no input {', '.join(lacking)}")
        for name in self.memory:
            before, after = inputs.get(name), outputs.get(f"{name}_out")
            if before is None or after is None:
                raise ValueError(f"memory {name!r} needs the input and an output '{name}_out'")
            if (before.dtype, before.shape) != (after.dtype, after.shape):
                raise ValueError(f"memory {name!r} leaves with another shape or type than it has")
        return self

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """The inputs that come from `tables.safetensors`."""
        known = {*TOKEN_INPUTS, "lead_s", *self.memory}
        return tuple(tensor for tensor in self.inputs if tensor.name not in known)


class Parity(Part):
    """Bounds for a backend against the recorded outputs, in the outputs' units."""

    n_beats: Annotated[int, Field(ge=1)]
    atol_fp32: Annotated[float, Field(gt=0, allow_inf_nan=False)] = ATOL_FP32
    atol_reduced: Annotated[float, Field(gt=0, allow_inf_nan=False)] = ATOL_REDUCED


class Verification(Part):
    """Scores on held-out trials.

    Attributes:
        r2: per output, per dimension.
        ci: per output, per dimension: 95 % interval (low, high).
        n_trials: held-out trials.
        seconds: of held-out data.
    """

    r2: dict[str, tuple[Finite, ...]]
    ci: dict[str, tuple[tuple[Finite, Finite], ...]]
    n_trials: Annotated[int, Field(ge=0)]
    seconds: Seconds


class FileSum(Part):
    """Checksum and size of a file of the bundle."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Part):
    """All that is said of a decoder; `units` maps keys to rows of the tables."""

    format: Literal[1]
    name: Name
    id: Sha256
    family: Name
    parent_id: Sha256 | None
    created_utc: AwareDatetime
    code_version: Name
    session: Name
    units: Annotated[tuple[UnitRow, ...], Field(min_length=1)]
    hop_s: PositiveSeconds
    bin_s: PositiveSeconds
    context_s: Seconds
    stale_after_s: PositiveSeconds
    token_buckets: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MOST_TOKENS)], ...], Field(min_length=1)
    ]
    lead_s: LeadRange
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    graph: Graph
    parity: Parity
    training: dict[str, JsonValue]
    verification: Verification | None
    files: dict[str, FileSum]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.bin_s < self.hop_s:
            raise ValueError(f"`bin_s` ({self.bin_s}) is shorter than `hop_s` ({self.hop_s})")
        if list(self.token_buckets) != sorted(set(self.token_buckets)):
            raise ValueError("`token_buckets` must increase")
        _refuse_twice("units", [unit.key for unit in self.units])
        _refuse_twice("outputs", [output.name for output in self.outputs])
        self._outputs_in_graph()
        self._parity_tells()
        for path in self.files:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"`files`: {path!r} leaves the bundle")
        return self

    def _parity_tells(self) -> None:
        spans = [high - low for o in self.outputs for low, high in zip(o.low, o.high, strict=True)]
        for field, usual, share in (
            ("atol_fp32", ATOL_FP32, MOST_OFF_FP32),
            ("atol_reduced", ATOL_REDUCED, MOST_OFF_REDUCED),
        ):
            most = max(usual, share * max(spans))
            if getattr(self.parity, field) > most:
                raise ValueError(f"`parity.{field}` is above {most:g}: it would let anything pass")

    def _outputs_in_graph(self) -> None:
        shapes = {tensor.name: tensor.shape for tensor in self.graph.outputs}
        for output in self.outputs:
            if shapes.get(output.name) != (output.dims,):
                raise ValueError(
                    f"`outputs`: {output.name!r} has {output.dims} dims, "
                    f"the graph gives {shapes.get(output.name, 'no such output')}"
                )


def _refuse_twice(field: str, names: Sequence[str]) -> None:
    for name, n in Counter(names).items():
        if n > 1:
            raise ValueError(f"`{field}`: {name!r} stands there twice")


def parse_manifest(content: Mapping[str, Any], where: str) -> Manifest:
    """Validate a manifest's content.

    Args:
        content: the parsed JSON.
        where: path of the file, for the error.

    Raises:
        BundleError: naming file, field and what to do.
    """
    found = content.get("format")
    if found != FORMAT:
        raise BundleError(
            f"{where}: `format` is {found!r}, this program reads {FORMAT}; "
            "export the decoder again with this version, or install the one that wrote it"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{where}: {describe(error)}; export the bundle again") from error


def describe(error: ValidationError) -> str:
    """The first complaints of a validation, each with its field."""
    lines = []
    for item in error.errors(include_url=False)[:3]:
        field = ".".join(str(part) for part in item["loc"])
        lines.append(f"`{field}`: {item['msg']}" if field else item["msg"])
    n_more = error.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {n_more} more" if n_more else "")


def seal_of(content: Mapping[str, Any]) -> str:
    """Digest of what a manifest says, but for what is computed from it and the date.

    It is kept in the metadata of `tables.safetensors`, so that the files' sums, and with them the
    bundle's `id`, hold the manifest's content too: a changed unit map or hop is another decoder.
    Units are written line by line: one call over thousands of them would hold up a running beat.
    """
    apart = ("id", "files", "created_utc", "units")
    said = {name: value for name, value in content.items() if name not in apart}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for unit in content["units"]:
        digest.update(f"\n{unit['row']} {unit['key']}".encode())
    return digest.hexdigest()


def id_of(files: Mapping[str, FileSum]) -> str:
    """The bundle's `id`: sha256 over the sums of its files, in the order of their paths."""
    lines = "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()

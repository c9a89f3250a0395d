from __future__ import annotations

from typing import Any

import pytest

from export.bundle import DecoderBundle
from export.errors import BundleError
from export.manifest import parse_manifest, seal_of


@pytest.fixture
def content(pristine: DecoderBundle) -> dict[str, Any]:
    held: dict[str, Any] = pristine.manifest.model_dump(mode="json")
    return held


def _wrong(content: dict[str, Any], **changed: object) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(content | changed, "there/manifest.json")
    text = str(caught.value)
    assert text.startswith("there/manifest.json: ")
    assert "again" in text
    return text


def test_reads_what_it_wrote(content: dict[str, Any], pristine: DecoderBundle) -> None:
    assert parse_manifest(content, "x") == pristine.manifest


def test_unknown_field_is_named(content: dict[str, Any]) -> None:
    assert "`hop_ms`" in _wrong(content, hop_ms=20)


def test_unknown_field_of_a_part_is_named(content: dict[str, Any]) -> None:
    lead = content["lead_s"] | {"most": 1.0}
    assert "`lead_s.most`" in _wrong(content, lead_s=lead)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_format_names_both_versions(content: dict[str, Any], version: object) -> None:
    text = _wrong(content, format=version)
    assert f"`format` is {version!r}, this program reads 1" in text


def test_missing_field_is_named(content: dict[str, Any]) -> None:
    del content["bin_s"]
    assert "`bin_s`" in _wrong(content)


@pytest.mark.parametrize("value", [0.0, -0.02, float("nan"), float("inf"), "soon"])
def test_impossible_hop(content: dict[str, Any], value: object) -> None:
    assert "`hop_s`" in _wrong(content, hop_s=value)


def test_bin_shorter_than_hop(content: dict[str, Any]) -> None:
    assert "`bin_s` (0.01) is shorter than `hop_s` (0.02)" in _wrong(content, bin_s=0.01)


@pytest.mark.parametrize("buckets", [[], [0, 64], [256, 64], [64, 64]])
def test_impossible_token_buckets(content: dict[str, Any], buckets: list[int]) -> None:
    assert "`token_buckets" in _wrong(content, token_buckets=buckets)


def test_unit_key_twice_is_named(content: dict[str, Any]) -> None:
    units = [{"key": "u3", "row": 0}, {"key": "u3", "row": 1}]
    assert "`units`: 'u3' stands there twice" in _wrong(content, units=units)


def test_no_units(content: dict[str, Any]) -> None:
    assert "`units`" in _wrong(content, units=[])


def test_default_lead_outside_its_range(content: dict[str, Any]) -> None:
    lead = {"min": 0.0, "max": 0.1, "default": 0.2}
    assert "`lead_s`" in _wrong(content, lead_s=lead)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"low": [-30.0]}, "need 2 values each"),
        ({"low": [30.0, 30.0]}, "must lie below `high`"),
        ({"safe": "last"}, "`outputs.0.safe`"),
        ({"dims": 3, "low": [0.0] * 3, "high": [1.0] * 3}, "'velocity' has 3 dims"),
        ({"name": "speed"}, "no such output"),
    ],
)
def test_output_that_cannot_be(
    content: dict[str, Any], changed: dict[str, Any], complaint: str
) -> None:
    outputs = [content["outputs"][0] | changed, content["outputs"][1]]
    assert complaint in _wrong(content, outputs=outputs)


def test_graph_without_an_input_of_the_contract(content: dict[str, Any]) -> None:
    inputs = [tensor for tensor in content["graph"]["inputs"] if tensor["name"] != "count"]
    graph = content["graph"] | {"inputs": inputs}
    assert "no input count" in _wrong(content, graph=graph)


def test_memory_that_does_not_come_out(content: dict[str, Any]) -> None:
    outputs = [t for t in content["graph"]["outputs"] if t["name"] != "memory_h_out"]
    graph = content["graph"] | {"outputs": outputs}
    assert "'memory_h_out'" in _wrong(content, graph=graph)


def test_memory_that_comes_out_in_another_shape(content: dict[str, Any]) -> None:
    outputs = [
        tensor | ({"shape": [1, 3]} if tensor["name"] == "memory_h_out" else {})
        for tensor in content["graph"]["outputs"]
    ]
    graph = content["graph"] | {"outputs": outputs}
    assert "another shape" in _wrong(content, graph=graph)


@pytest.mark.parametrize("path", ["../graph.onnx", "/etc/passwd", "report/../../x"])
def test_file_outside_the_bundle(content: dict[str, Any], path: str) -> None:
    files = content["files"] | {path: content["files"]["graph.onnx"]}
    assert "leaves the bundle" in _wrong(content, files=files)


def test_several_complaints_come_together(content: dict[str, Any]) -> None:
    text = _wrong(content, hop_s=-1, bin_s=-1, context_s=-1, stale_after_s=-1)
    assert "`hop_s`" in text
    assert "and 1 more" in text


def test_seal_holds_every_field_but_what_is_computed_from_it(content: dict[str, Any]) -> None:
    seal = seal_of(content)
    for field in content:
        changed = content | {field: [{"row": 0, "key": "v"}] if field == "units" else "changed"}
        computed = field in ("id", "files", "created_utc")
        assert (seal_of(changed) == seal) == computed, field

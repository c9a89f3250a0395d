"""Labels of positions as other programs write them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streams.lsl.axes import axes_of, axis_of, named_channels


@pytest.mark.parametrize(
    ("label", "means"),
    [
        ("x", ("", "x")),
        ("Y", ("", "y")),
        ("cursor_x", ("cursor", "x")),
        ("Cursor X", ("cursor", "x")),
        ("cursorX", ("cursor", "x")),
        ("Cursor.Y", ("cursor", "y")),
        ("cursor_position_z", ("cursor", "z")),
        ("pos_X", ("", "x")),
        ("PosY", ("", "y")),
        ("x_pos", ("", "x")),
        ("X Position", ("", "x")),
        ("right hand-y", ("right_hand", "y")),
        ("cursor_velocity_x", ("cursor_velocity", "x")),
        ("targets_acquired", None),
        ("index", None),
        ("Fz", None),
        ("", None),
    ],
)
def test_what_a_label_means(label: str, means: tuple[str, str] | None) -> None:
    assert axis_of(label) == means


@pytest.mark.parametrize(
    ("labels", "means"),
    [
        (("cursor_x", "cursor_y", "target_x", "target_y"), {"cursor": [0, 1], "target": [2, 3]}),
        (("Y", "X", "pressed"), {"": [1, 0]}),
        (("x", "X", "y"), {}),
        (("left", "right"), {}),
    ],
)
def test_channels_in_the_order_of_their_axes(
    labels: Sequence[str], means: dict[str, list[int]]
) -> None:
    assert axes_of(labels) == means


def test_channels_by_name() -> None:
    labels = ("Left", "right", "up", "up")
    assert named_channels(labels, ("right", "left")) == [1, 0]
    assert named_channels(labels, ("up", "left")) is None
    assert named_channels(labels, ("down",)) is None

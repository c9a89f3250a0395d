"""When the next block may arrive, told from those of late."""

from __future__ import annotations

from service.loop.block_predictor import N_KEPT, BlockPredictor

LENGTH_S = 5e-3


def blocks_at(*times_s: float) -> BlockPredictor:
    blocks = BlockPredictor()
    for t_s in times_s:
        blocks.note(t_s)
    return blocks


def regular(n: int = 10, pieces: int = 1) -> BlockPredictor:
    """The last block began to arrive at (n - 1) * LENGTH_S, in pieces 0.2 ms apart."""
    return blocks_at(*(i * LENGTH_S + j * 0.2e-3 for i in range(n) for j in range(pieces)))


def test_before_two_blocks_came_nothing_is_expected() -> None:
    assert not BlockPredictor().may_come(0.0, 1e9)
    assert not blocks_at(1.0).may_come(1.0, 1e9)


def test_the_next_block_is_expected_a_block_after_the_newest() -> None:
    t_newest = 9 * LENGTH_S
    for blocks in (regular(), regular(pieces=3)):
        assert not blocks.may_come(t_newest, t_newest + 0.9 * LENGTH_S)
        assert blocks.may_come(t_newest, t_newest + 1.1 * LENGTH_S)
        assert blocks.may_come(t_newest + 1.5 * LENGTH_S, t_newest + 1.6 * LENGTH_S)


def test_a_block_long_overdue_is_no_longer_expected() -> None:
    t_newest = 9 * LENGTH_S
    assert not regular().may_come(t_newest + 2.5 * LENGTH_S, t_newest + 3.0 * LENGTH_S)


def test_the_shortest_distance_of_late_counts_and_is_forgotten_in_time() -> None:
    blocks, t_s = blocks_at(0.0, 2e-3), 2e-3
    assert blocks.may_come(t_s, t_s + 2.1e-3)
    for _ in range(N_KEPT):
        blocks.note(t_s := t_s + LENGTH_S)
    assert not blocks.may_come(t_s, t_s + 0.9 * LENGTH_S)

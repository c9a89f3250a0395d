"""Reading torch_brain's checkpoints, and what is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decoders.poyo.checkpoint import CheckpointError, read_checkpoint
from decoders.poyo.tokens import PoyoWindow, batch_of
from tests.decoders.poyo_windows import (
    SESSION,
    hyper_parameters,
    random_network,
    tiny_config,
    words,
    write_lightning,
)

Content = dict[str, Any]


class Payload:
    """Pickles to a call: what a hostile checkpoint would hold."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return Path.touch, (self.victim,)  # type: ignore[return-value]


@pytest.fixture
def content() -> Content:
    network = random_network(tiny_config(), 3)
    return {
        "state_dict": {f"model.{name}": v for name, v in network.state_dict().items()},
        "hyper_parameters": hyper_parameters(network.config),
    }


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    return path


def refusal(tmp_path: Path, content: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(written(tmp_path, content))
    assert str(tmp_path / "a.ckpt") in str(caught.value)
    return str(caught.value)


def test_reads_what_was_written(tmp_path: Path) -> None:
    network = random_network(tiny_config(), 3)
    write_lightning(tmp_path / "a.ckpt", network.state_dict(), network.config)
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert read.config == network.config
    assert read.unit_emb.words == words(3)
    assert read.session_emb.words == [SESSION]
    assert not read.training
    window = PoyoWindow(np.array([1, 2, 3]), np.array([0]), np.array([0.5]), np.ones(1), 1)
    batch = batch_of([window], np.ones((1, 1)), 1.0)
    assert torch.equal(read(batch), network(batch))


def test_vocabulary_need_not_stand_in_the_order_of_its_rows(
    tmp_path: Path, content: Content
) -> None:
    vocab = content["state_dict"]["model.unit_emb.vocab"]
    content["state_dict"]["model.unit_emb.vocab"] = OrderedDict(reversed(vocab.items()))
    assert read_checkpoint(written(tmp_path, content)).unit_emb.words == words(3)


def test_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, content: Content) -> None:
    victim = tmp_path / "touched"
    content["callbacks"] = Payload(victim)
    text = refusal(tmp_path, content)
    assert "holds more than tensors and plain values" in text
    assert "runs whatever code is in it, with all your rights" in text
    assert "--trust-pickle" in text
    assert not victim.exists()
    read_checkpoint(tmp_path / "a.ckpt", trust_pickle=True)
    assert victim.exists()


def test_trust_does_not_help_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt", trust_pickle=True)


def test_objects_of_an_absent_package(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "a.ckpt"
    content["extra"] = Payload
    torch.save(content, path)
    absent = pickle.dumps(Payload).replace(b"test_poyo_checkpoint", b"test_poyo_checkpoinX")
    (tmp_path / "b.ckpt").write_bytes(absent)
    with pytest.raises(CheckpointError, match=r"package that is not installed here.*checkpoinX"):
        read_checkpoint(tmp_path / "b.ckpt", trust_pickle=True)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_checkpoint(tmp_path / "absent.ckpt")


def test_truncated_file(tmp_path: Path, content: Content) -> None:
    path = written(tmp_path, content)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"weights": 1}, {"state_dict": {}}])
def test_other_layouts(tmp_path: Path, content: Any) -> None:
    text = refusal(tmp_path, content)
    assert "has not the layout of a Lightning checkpoint of torch_brain" in text


def test_bare_state_dict_of_a_network(tmp_path: Path, content: Content) -> None:
    assert "needs `state_dict` and `hyper_parameters`" in refusal(tmp_path, content["state_dict"])


def test_missing_key_is_named(tmp_path: Path, content: Content) -> None:
    del content["state_dict"]["model.rotary_emb.omega"]
    text = refusal(tmp_path, content)
    assert "missing rotary_emb.omega; unexpected none; other shapes none" in text


def test_missing_vocabulary_is_named(tmp_path: Path, content: Content) -> None:
    del content["state_dict"]["model.session_emb.vocab"]
    assert "missing session_emb.vocab" in refusal(tmp_path, content)


def test_unexpected_keys_are_named(tmp_path: Path, content: Content) -> None:
    for i in range(7):
        content["state_dict"][f"model.task_emb.{i}"] = torch.zeros(2)
    content["hyper_parameters"]["model"]["_target_"] = "torch_brain.models.POYOPlus"
    text = refusal(tmp_path, content)
    assert "another architecture (it is of torch_brain.models.POYOPlus)" in text
    assert (
        "unexpected task_emb.0, task_emb.1, task_emb.2, task_emb.3, task_emb.4 and 2 more" in text
    )


def test_other_shape_is_named(tmp_path: Path, content: Content) -> None:
    content["hyper_parameters"]["model"]["num_latents_per_step"] = 5
    assert "other shapes latent_emb.weight [4, 16] for [5, 16]" in refusal(tmp_path, content)


def test_unknown_argument_is_named(tmp_path: Path, content: Content) -> None:
    content["hyper_parameters"]["model"]["backbone"] = "gru"
    assert "arguments of its model: unknown ['backbone']" in refusal(tmp_path, content)


def test_argument_that_is_no_number_is_named(tmp_path: Path, content: Content) -> None:
    content["hyper_parameters"]["model"]["dim"] = "sixteen"
    assert "no numbers ['dim']" in refusal(tmp_path, content)


def test_no_model_among_hyper_parameters(tmp_path: Path, content: Content) -> None:
    content["hyper_parameters"] = {"lr": 1e-3}
    assert "`hyper_parameters` has no `model`" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    "vocab", [None, {}, {"NA": 0, "a": 2}, {"a": 0, "b": 1}, {"NA": 0, "a": 0}]
)
def test_vocabulary_without_rows_of_its_own(tmp_path: Path, content: Content, vocab: Any) -> None:
    content["state_dict"]["model.unit_emb.vocab"] = vocab
    assert "`unit_emb.vocab` must map 'NA' to 0" in refusal(tmp_path, content)


def test_value_that_is_not_finite(tmp_path: Path, content: Content) -> None:
    content["state_dict"]["model.readout.bias"][1] = torch.nan
    assert "not finite in readout.bias" in refusal(tmp_path, content)

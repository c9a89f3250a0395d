"""Read a torch_brain checkpoint: Lightning's layout, the vocabularies inside the state dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from decoders.errors import DecodersError
from decoders.poyo.config import PoyoConfig, from_torch_brain
from decoders.poyo.network import PADDING, Poyo

PREFIX = "model."
VOCABULARIES = ("unit_emb.vocab", "session_emb.vocab")
N_NAMED = 5


class CheckpointError(DecodersError):
    """A file is not a POYO checkpoint that can be read; the text says in what it differs."""


def read_checkpoint(path: Path, *, trust_pickle: bool = False) -> Poyo:
    """Read a torch_brain checkpoint of POYO.

    Args:
        path: the file.
        trust_pickle: read it even if it holds more than tensors and plain values. That runs
            whatever code the file carries.

    Returns:
        The network in float32, in evaluation.

    Raises:
        CheckpointError: no such file, no checkpoint, another architecture, or one that needs
            `trust_pickle`.
    """
    content = _load(path, trust_pickle)
    weights, vocabularies = _weights(path, content)
    config = _config(path, content, weights)
    units, sessions = (_words(path, name, vocabularies[name]) for name in VOCABULARIES)
    network = Poyo(config, units, sessions)
    _require_fit(path, network, weights, _told_target(content))
    network.load_state_dict(weights)
    return network.eval()


def _load(path: Path, trust_pickle: bool) -> Mapping[str, Any]:
    try:
        # Objects are unpickled only where the user says `--trust-pickle`.
        content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)  # nosec B614
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}") from error
    except UnpicklingError as error:
        raise _needs_trust(path, error) if not trust_pickle else _unreadable(path, error) from error
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path} holds objects of a package that is not installed here: {error}"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        raise _not_lightning(path, f"it holds a {type(content).__name__}")
    return content


def _needs_trust(path: Path, error: Exception) -> CheckpointError:
    found = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "")
    return CheckpointError(
        f"{path} holds more than tensors and plain values{f' ({found})' if found else ''}. "
        "Reading it runs whatever code is in it, with all your rights on this machine: if you "
        "know who made it and trust them, say --trust-pickle; if not, ask for a file that "
        "torch.load(weights_only=True) reads"
    )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a readable checkpoint: {error}")


def _not_lightning(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} has not the layout of a Lightning checkpoint of torch_brain ({what}): it needs "
        "`state_dict` and `hyper_parameters`"
    )


def _weights(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors without Lightning's prefix, and apart from them the vocabularies."""
    held = content.get("state_dict")
    if not isinstance(held, Mapping) or "hyper_parameters" not in content:
        raise _not_lightning(path, f"it holds {_named(sorted(map(str, content)))}")
    bare = {str(name).removeprefix(PREFIX): value for name, value in held.items()}
    vocabularies = {name: bare.pop(name) for name in VOCABULARIES if name in bare}
    lacking = [
        name for name in (*VOCABULARIES, "readout.weight") if name not in {**bare, **vocabularies}
    ]
    others = [name for name, value in bare.items() if not isinstance(value, Tensor)]
    if lacking or others:
        raise CheckpointError(
            f"{path} is no checkpoint of POYO{_told_target(content)}: "
            f"missing {_named(lacking)}, not tensors {_named(others)}"
        )
    return bare, vocabularies


def _told_target(content: Mapping[str, Any]) -> str:
    """Class that the checkpoint names as its own, for the error."""
    arguments = _model_arguments(content)
    target = arguments.get("_target_") if arguments else None
    return f" (it is of {target})" if target else ""


def _model_arguments(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    hyper = content["hyper_parameters"]
    arguments = hyper.get("model") if isinstance(hyper, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else None


def _config(path: Path, content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> PoyoConfig:
    arguments = _model_arguments(content)
    if arguments is None:
        raise _not_lightning(path, "`hyper_parameters` has no `model`")
    plain = {str(k): v for k, v in arguments.items() if k not in ("_target_", "dim_out")}
    try:
        return from_torch_brain(plain, len(weights["readout.weight"]))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is of another architecture{_told_target(content)}: "
            f"arguments of its model: {error}"
        ) from error


def _words(path: Path, name: str, vocab: Any) -> list[str]:
    rows = sorted(vocab.values()) if isinstance(vocab, Mapping) else []
    if not rows or rows != list(range(len(rows))) or vocab.get(PADDING) != 0:
        raise CheckpointError(
            f"{path}: `{name}` must map {PADDING!r} to 0 and each word to a row of its own"
        )
    return sorted((word for word in vocab if word != PADDING), key=lambda word: int(vocab[word]))


def _require_fit(path: Path, network: Poyo, weights: Mapping[str, Tensor], target: str) -> None:
    """Require the names, shapes and finite values that this POYO has."""
    own = {n: v for n, v in network.state_dict().items() if n not in VOCABULARIES}
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = [
        f"{name} {list(weights[name].shape)} for {list(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if missing or unexpected or reshaped:
        raise CheckpointError(
            f"{path} is of another architecture{target}: missing {_named(missing)}; "
            f"unexpected {_named(unexpected)}; other shapes {_named(sorted(reshaped))}"
        )
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path} holds values that are not finite in {_named(broken)}")


def _named(names: Sequence[str]) -> str:
    """List the first few, and count the others."""
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return (", ".join(names[:N_NAMED]) or "none") + more

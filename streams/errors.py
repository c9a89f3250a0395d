"""Errors of `streams`, each with a text that says what to do next."""

from __future__ import annotations


class StreamsError(Exception):
    """Base class for errors in `streams`; the text says what to do next."""


class StreamAbsentError(StreamsError):
    """No LSL stream answered the description."""


class StreamAmbiguousError(StreamsError):
    """Several LSL streams answer the description."""


class StreamLostError(StreamsError):
    """The source ended, and has no `source_id` that LSL could find it again by."""


class StreamUnfitError(StreamsError):
    """The stream's layout is none that we read."""


class LayoutError(StreamUnfitError):
    """A layout cannot read the stream; the text says only why."""


class SessionError(StreamsError):
    """A recording cannot serve the request."""


class LackingError(SessionError):
    """A whole file without a behaviour that was asked for, as a benchmark's test file."""


class RecordingError(StreamsError):
    """A recording cannot be written or read."""


class AddressError(StreamsError):
    """An address is in use, malformed, or not ours to bind."""


class UnreachableError(StreamsError):
    """Nobody answered at the address."""


class CurveKeysError(StreamsError):
    """Keys cannot be made or read."""


class WireError(StreamsError):
    """A message does not follow the wire format."""


class SimulationError(StreamsError):
    """The simulated subject was asked for something that it cannot be."""

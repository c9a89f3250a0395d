"""Input layouts: how a stream's samples become spikes (`docs/streams.md`)."""

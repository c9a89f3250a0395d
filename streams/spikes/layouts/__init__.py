"""Layouts of input streams: how their samples become spikes (`docs/streams.md`)."""

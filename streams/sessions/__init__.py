"""Recordings of other people become `Session`s."""

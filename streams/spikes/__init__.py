"""Spikes on their way from a pull's samples to a bin's tokens."""

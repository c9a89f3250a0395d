"""Spikes on their way from the samples of a pull to the tokens of a bin."""

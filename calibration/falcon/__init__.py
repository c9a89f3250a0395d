"""Decoders in the FALCON benchmark: its interface, and its score."""

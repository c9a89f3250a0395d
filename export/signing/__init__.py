"""Signatures of bundles: the keys, and what they sign."""

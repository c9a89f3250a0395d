"""Bundles with random weights: they cost what real ones do, for the bench and for tests."""

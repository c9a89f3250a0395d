"""Bundles that decode nothing and cost what real ones do: for the bench, and for tests."""

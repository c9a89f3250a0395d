"""The choice of a backend for a bundle: the fastest of those that pass."""

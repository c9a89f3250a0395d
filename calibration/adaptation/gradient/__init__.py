"""Adaptation by gradient steps (torch)."""

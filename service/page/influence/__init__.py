"""Influence of the units on the decode now."""

"""Compiling ahead: precision, static shapes, and the builds that are kept."""

"""Checks on a file's contents, which then become a session."""

"""Judgement about a stream, measured over some seconds: what is wrong, and what to change."""

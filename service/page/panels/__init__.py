"""Panels of the page: each keeps what it needs of the messages, and tells it as JSON."""

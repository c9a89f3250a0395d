"""Bits that flip in a running daemon's memory."""

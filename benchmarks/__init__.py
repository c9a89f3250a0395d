"""Measurements for developers: other people's loops beside ours. Not part of the wheel."""

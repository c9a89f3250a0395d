"""Recordings converted into sessions."""

"""Recorded runs, read again: every decode made anew, and compared with what was said."""

"""Arithmetic on each spike between pull and token, once for numpy and once for numba."""

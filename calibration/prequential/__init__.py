"""Predict, then learn: a decoder made again and again while its trials are collected."""

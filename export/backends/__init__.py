"""Backends: what runs a bundle's graph, one bin a step; one file each, and the table of them."""

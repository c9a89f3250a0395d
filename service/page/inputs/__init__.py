"""Inputs of the page: the wire, and the streams of spikes, positions and markers."""

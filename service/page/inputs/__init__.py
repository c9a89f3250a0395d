"""What the page reads: the wire, and the streams of spikes, positions and markers."""

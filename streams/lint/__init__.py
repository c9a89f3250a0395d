"""What a stream's owner wants to know of it: measured over some seconds, with what to change."""

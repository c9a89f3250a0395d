"""What the live page costs: its process, the browser's pictures, and the daemon beside it."""

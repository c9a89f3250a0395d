"""What the page shows: each panel keeps what it needs of the messages, and tells it as JSON."""

"""What leaves and how: the messages, the sockets, and their CURVE keys."""

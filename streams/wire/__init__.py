"""The wire: messages, sockets, and their CURVE keys."""

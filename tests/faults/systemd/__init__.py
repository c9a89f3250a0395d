"""A machine that systemd boots, in namespaces of its own."""

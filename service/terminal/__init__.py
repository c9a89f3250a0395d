"""Output for people: a run's status, and decodes as they come."""

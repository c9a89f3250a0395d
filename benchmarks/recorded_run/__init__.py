"""A run with everything that can happen in one, recorded, killed, and decoded again."""

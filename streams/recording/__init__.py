"""Recording what streams bring: an append-only log of framed bytes (XDF), and sessions from it."""

"""Each unit's push on the decode now, computed beside the daemon; without torch."""

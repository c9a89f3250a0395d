"""How much each unit pushes the decode now, computed beside the daemon; without torch."""

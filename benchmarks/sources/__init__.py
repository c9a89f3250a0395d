"""`cut = "auto"` on sources that are not as orderly as ours."""

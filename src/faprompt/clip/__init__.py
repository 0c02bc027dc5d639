"""The frozen backbone, on top of open_clip: its towers, tokens, weights and names."""

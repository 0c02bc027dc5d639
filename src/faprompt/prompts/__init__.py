"""Text directions from words and learned vectors."""

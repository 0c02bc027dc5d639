"""faprompt."""

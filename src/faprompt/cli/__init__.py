"""Door: the command line. Flags -> config -> one library call."""

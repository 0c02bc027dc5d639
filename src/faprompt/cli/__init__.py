"""The command line: options become a config, and one library call does the work."""

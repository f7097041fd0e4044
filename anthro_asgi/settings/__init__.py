"""The options of the command: one table, read from the command line, the environment and a TOML file."""

"""Options: one table, from the command line, the environment and a TOML file."""

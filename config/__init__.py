"""Configuration: the schema of every TOML section, and how files and --set become one checked object."""

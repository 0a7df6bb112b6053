"""The subcommands of `asrkd`."""

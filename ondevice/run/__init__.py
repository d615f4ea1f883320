"""Runs: the phases of a configuration, in a directory that can be resumed."""

"""Studies: many trials of a configuration over a space."""

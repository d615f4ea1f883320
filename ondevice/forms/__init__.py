"""Forms: the ways in which a table can be stored. One form, one file; importing the package registers them all."""

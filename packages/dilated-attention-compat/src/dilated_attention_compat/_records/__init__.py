"""The records, a file for each family of names."""

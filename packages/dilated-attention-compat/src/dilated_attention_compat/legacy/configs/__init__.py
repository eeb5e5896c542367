"""The historical configuration classes, one a file."""

"""The historical classes, one a file, with the numbers they had."""

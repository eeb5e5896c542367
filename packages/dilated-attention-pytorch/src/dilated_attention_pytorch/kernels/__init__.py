"""Attention of one part of the keys, with lse, forward and backward."""

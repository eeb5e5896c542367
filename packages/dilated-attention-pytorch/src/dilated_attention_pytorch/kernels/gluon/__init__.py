"""Hopper kernels: a producer streams what `schedule/streams.py` lists, two consumers compute."""

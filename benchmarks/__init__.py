"""Benchmarks: every figure is gated by a correctness check of the very shapes that are timed."""

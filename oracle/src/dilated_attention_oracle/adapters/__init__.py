"""Other forms of the operator, behind one signature: NumPy (the oracle itself) and PyTorch."""

"""Own Triton kernels: every branch of a row in one launch and one softmax."""

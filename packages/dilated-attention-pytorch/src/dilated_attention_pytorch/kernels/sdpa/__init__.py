"""PyTorch's own attention kernels, with lse, on strided views of each branch's rows."""

"""PyTorch's own ring attention on the dense case of `benchmarks.scaling`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.experimental import context_parallel
from torch.nn.attention import SDPBackend, sdpa_kernel

from dilated_attention_pytorch.bench.candidate import AbsentError
from dilated_attention_pytorch.bench.inputs import Inputs
from dilated_attention_pytorch.bench.machine import Call


@contextmanager
def context_parallel_calls(inputs: Inputs, group: dist.ProcessGroup) -> Iterator[dict[str, Call]]:
    """`forward` and `forward_backward` of causal attention over the group, cuDNN, balanced.

    Raises:
        AbsentError: no CUDA device; PyTorch has no ring for the CPU's kernels.
    """
    if inputs.query.device.type != "cuda":
        raise AbsentError("context_parallel needs CUDA devices")
    buffers = [
        x.transpose(1, 2).contiguous()
        for x in (inputs.query, inputs.key, inputs.value, inputs.dout)
    ]
    mesh = DeviceMesh.from_group(group, "cuda")
    with (
        context_parallel(
            mesh, buffers=buffers, buffer_seq_dims=[2] * 4, no_restore_buffers=set(buffers)
        ),
        sdpa_kernel(SDPBackend.CUDNN_ATTENTION),
    ):
        *own, dout = buffers
        leaves = [x.detach().requires_grad_() for x in own]

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

        def forward() -> Tensor:
            with torch.no_grad():
                return attend(*own)

        def forward_backward() -> tuple[Tensor, ...]:
            return torch.autograd.grad(attend(*leaves), leaves, dout)

        yield {"forward": forward, "forward_backward": forward_backward}

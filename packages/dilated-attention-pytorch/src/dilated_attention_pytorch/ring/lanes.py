"""From the carry to (out, lse): one result, or torchscale's mix of one result per branch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.carry import Carry
from ..kernels.options import KernelOptions, Result
from ..schedule import Groups, Rows
from ..schedule.heads import branch_offsets, head_set


def finish(carry: Carry, queries: Groups, options: KernelOptions, dtype: torch.dtype) -> Result:
    """Finish the softmax of every row; in torchscale's modes mix the branches.

    The mix is `lse = logaddexp_i lse_i`, `out = sum_i exp(lse_i - lse) out_i`, which is the single
    softmax over all branches; only phantom keys and the gradient make it differ.
    """
    if not options.per_branch:
        return Result(*options.backend.finish(carry, dtype))
    if options.problem.pattern.phantom_keys:
        _add_phantoms(carry, queries, options)
    lane_out, lane_lse = carry.finish()
    if options.problem.pattern.phantom_keys:
        # torchscale marks uncovered rows by lse = 0, so a true lse of 0 counts as uncovered too.
        dropped = lane_lse == 0
        lane_lse = torch.where(dropped, -torch.inf, lane_lse)
        lane_out = torch.where(dropped[..., None], 0.0, lane_out)
    lse = lane_lse.logsumexp(0)
    pivot = torch.where(lse == -torch.inf, 0.0, lse)
    out = (torch.exp(lane_lse - pivot)[..., None] * lane_out).sum(0)
    return Result(out.to(dtype), lse, lane_out.to(dtype), lane_lse)


def _add_phantoms(carry: Carry, queries: Groups, options: KernelOptions) -> None:
    """m zero keys with zero values: score 0, so maximum 0, sum m, weighted values 0."""
    problem = options.problem
    every_head = tuple(range(problem.num_kv_heads))
    for branch in range(problem.num_branches):
        segment, place = queries.coordinates(branch)
        rate = problem.pattern.branches[branch].dilation_rate
        for offset in branch_offsets(problem, branch):
            heads = head_set(problem, branch, offset, every_head)
            assert heads is not None
            count = problem.phantom_rows(branch, offset, segment, place // rate)
            count[place % rate != offset] = 0
            total = torch.from_numpy(count).to(carry.total.device, carry.total.dtype)
            b, _, _, d = carry.weighted.shape[1:]
            shape = (b, len(count), len(heads.query))
            total = total[None, :, None].expand(shape)
            maximum = torch.where(total > 0, 0.0, -torch.inf)
            rows = Rows(0, 1, len(count))
            if len(count):
                carry.update(
                    branch, rows, heads.query, maximum, total, total.new_zeros((*shape, d))
                )


def backward_terms(
    dout: Tensor, dlse: Tensor | None, result: Result, options: KernelOptions
) -> tuple[Tensor, Tensor]:
    """(lse, delta) of every lane, (lanes, b, n, H), for the backward of any part of the keys.

    delta = <dout, out> - dlse. With a detached mix branch i backpropagates `alpha_i dout` with its
    own (out_i, lse_i): since `alpha_i P_i` is the joint P, only delta changes, to <dout, out_i>.
    """
    lse = result.lse[None]
    detached = options.problem.pattern.detach_mix
    delta = options.backend.delta(dout, result, detached=detached)
    if result.lane_lse is not None:
        lse = torch.where(result.lane_lse == -torch.inf, torch.inf, lse)
    if detached:
        return lse, delta
    if dlse is not None:
        delta = delta - dlse
    return lse, delta[None].expand_as(lse)

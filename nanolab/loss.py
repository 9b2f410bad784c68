"""The loss of a language model, with its logits a few hundred tokens at a time.

Head, soft cap and cross-entropy belong together: a batch's logits are its largest tensor by far, and are
never all kept.

N = supervised tokens, C = channels (n_embd), V = vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor

SOFTCAP = 15.0


def softcap(logits: Tensor) -> Tensor:
    """Squash logits smoothly into (-15, 15), as Gemma 2 does."""
    return SOFTCAP * torch.tanh(logits / SOFTCAP)


def loss_chunk(vocab_size: int) -> int:
    """How many tokens' logits to hold at once: about 16 MB of them, but at least 512 tokens' worth, since
    each chunk reads the whole head."""
    return max(512, 2**22 // vocab_size)


def capped_cross_entropy_(logits: Tensor, targets: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
    """Each token's loss in nats, and the normaliser of its softmax, both `(N, 1)`.

    logits: `(N, V)` in any format, before the cap and divided by it. With `gradient` they are overwritten
    by d loss / d logit times the normaliser. targets: `(N, 1)`.
    """
    losses, normalisers = (torch.empty(targets.shape, device=logits.device) for _ in range(2))
    # On a CPU about 1 MB at a time: what one operation writes, the next one finds in the processor's cache.
    tile = max(1, 2**18 // logits.size(1)) if logits.device.type == "cpu" else max(1, logits.size(0))
    for rows, wanted, loss, normaliser in zip(
        *(tensor.split(tile) for tensor in (logits, targets, losses, normalisers)), strict=True
    ):
        squashed = rows.float().tanh()
        capped = squashed * SOFTCAP
        right = capped.gather(-1, wanted)
        # Capped logits are at most 15: their exponentials cannot overflow.
        exponentials = capped.exp_()
        normaliser[:] = exponentials.sum(dim=-1, keepdim=True)
        loss[:] = normaliser.log() - right
        if gradient:
            # d loss / d logit = probability - [is target]; the cap's slope is 1 - tanh^2.
            grad = exponentials.scatter_add_(-1, wanted, -normaliser)
            rows.copy_(grad.addcmul_(grad, squashed.square_(), value=-1))
    return losses, normalisers


class FusedLoss(torch.autograd.Function):
    """Head, soft cap and cross-entropy in one, a few hundred tokens at a time.

    The logits of a batch are its largest tensor by far (4,096 tokens at vocabulary 65,536: 1 GB), so
    they are never all kept. Each chunk's gradient is formed while its logits are at hand, in the
    forward pass; backward only scales it.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        """x `(N, C)`, weight `(V, C)`, targets `(N,)` all >= 0. Returns the summed loss in nats."""
        # Cast once: autocast would cast the head anew for every product of every chunk.
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        head, size = weight.to(dtype), loss_chunk(weight.size(0))
        total = torch.zeros((), device=x.device)
        grad_x, grad_weight = torch.empty_like(x), None
        for start in range(0, x.size(0), size):
            chunk = slice(start, start + size)
            h, logits = x[chunk], F.linear((x[chunk] / SOFTCAP).to(dtype), head)
            losses, normaliser = capped_cross_entropy_(
                logits, targets[chunk, None], gradient=any(ctx.needs_input_grad)
            )
            total += losses.sum()
            if any(ctx.needs_input_grad):
                # The division by the normaliser is left to the narrow tensors.
                grad_x[chunk] = (logits @ head) / normaliser
                part = (logits.T @ (h / normaliser).to(dtype)).to(weight.dtype)
                grad_weight = part if grad_weight is None else grad_weight.add_(part)
        ctx.save_for_backward(grad_x, torch.zeros_like(weight) if grad_weight is None else grad_weight)
        return total

    @staticmethod
    def backward(ctx, grad_total: Tensor):  # type: ignore[override]
        grad_x, grad_weight = ctx.saved_tensors
        # In place, as a head of 65,536 tokens is 64 MB; torch itself refuses a second backward then.
        return grad_x.mul_(grad_total), grad_weight.mul_(grad_total), None


def token_losses(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Each token's loss in nats, `(N,)`, for hidden states `(N, C)`; any later gradient may flow.

    Logits are recomputed in the backward pass, chunk by chunk, for the same reason as in FusedLoss.
    """

    def chunk_loss(h: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(softcap(F.linear(h, weight).float()), wanted, reduction="none")

    size = loss_chunk(weight.size(0))
    pieces = [
        torch.utils.checkpoint.checkpoint(chunk_loss, h, wanted, use_reentrant=False)
        for h, wanted in zip(x.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(pieces)

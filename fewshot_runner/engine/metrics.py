"""What an answer earns."""

from torch import Tensor


def query_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """(..., N) logits and (...) labels to what each query earns, (...) float64 on the CPU.

    The right class earns 1 where it alone has the largest logit, and 1/k in a tie of k classes: a network with
    constant output scores exactly 1/N. A logit that is not a number earns nothing.
    """
    logits, labels = logits.cpu(), labels.cpu()  # not every device has float64
    largest = logits.amax(dim=-1, keepdim=True)  # (..., 1)
    is_largest = logits == largest  # (..., N)
    right = is_largest.gather(-1, labels[..., None]).squeeze(-1)  # (...)
    return right.double() / is_largest.sum(dim=-1).clamp(min=1)

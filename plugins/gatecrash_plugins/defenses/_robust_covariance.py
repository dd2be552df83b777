"""Which rows a covariance can be estimated from although some were planted: the filter of Diakonikolas et al. (2017) for Gaussian rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_C = 10.0
"""The filter's constant, in the authors' code of SPECTRE."""
_SHIFT = 3.0
"""How far a threshold lies below the deviation that it was found at."""
_DENSE = 600
"""Matrices of so many rows are written down; larger ones are only multiplied with."""


def trusted(rows: Tensor, eps: float, tau: float, limit: int) -> Tensor:
    """Rows [N, D] that are kept, bool [N]: in rounds, until products of two columns vary as a Gaussian's do or `limit` rows are gone.

    `eps` is the share of planted rows that is expected, `tau` the probability of a failure. Rows are taken to have the mean 0.
    """
    kept = torch.ones(len(rows), dtype=torch.bool)
    while True:
        places = torch.nonzero(kept).flatten()
        stay = one_round(rows[places], eps, tau, limit)
        if stay is None or bool(stay.all()):
            return kept
        kept[places] = stay
        limit -= int((~stay).sum())
        if limit <= 0:
            return kept


def one_round(rows: Tensor, eps: float, tau: float, limit: int) -> Tensor | None:
    """Which rows stay, or None if these look like a Gaussian's or no threshold is found."""
    count, width = rows.shape
    white = rows @ inverse_root(rows.T @ rows / count)
    lengths = white.square().sum(1)
    far = lengths >= _C * width * math.log(count / tau)
    if bool(far.any()):
        return ~far | lowest(lengths, count - limit)
    largest, scores = leading_product(white)
    if largest <= 1 + _C * eps * math.log(1 / eps) ** 2:
        return None
    deviations = (scores / math.sqrt(2) - (scores / math.sqrt(2)).quantile(0.5)).abs()
    thresholds = deviations.sort().values - _SHIFT
    below = torch.arange(1, count + 1, dtype=rows.dtype) / count
    safe = thresholds.clamp_min(1.5)  # smaller ones are never beyond 10 log(1 / eps)
    tails = torch.where(thresholds <= _C * math.log(1 / eps), 1.0, 3 * eps / (safe * safe.log()).square())
    found = torch.nonzero((thresholds > 0) & (below >= tails)).flatten()
    if not len(found):
        return None
    return (deviations <= thresholds[found[0]]) | lowest(deviations, count - limit)


def leading_product(white: Tensor) -> tuple[float, Tensor]:
    """The largest eigenvalue of the covariance of all products of two columns of [N, D], and each row's component along its vector."""
    count, width = white.shape
    if width * (width + 1) // 2 <= min(_DENSE, count):
        left, right = torch.triu_indices(width, width)
        products = white[:, left] * white[:, right] * torch.where(left == right, 1.0, math.sqrt(2))
        products = products - products.mean(0)
        values, vectors = torch.linalg.eigh(products.T @ products / count)
        return float(values[-1]), products @ vectors[:, -1]
    # With more products than rows: the rows' inner products of centred products have the same eigenvalues.
    if count <= _DENSE:
        inner = (white @ white.T).square()
        inner = inner - inner.mean(0)
        values, vectors = torch.linalg.eigh((inner - inner.mean(1, keepdim=True)) / count)
        return float(values[-1]), vectors[:, -1] * math.sqrt(count * max(0.0, float(values[-1])))
    from scipy.sparse.linalg import LinearOperator, eigsh  # takes a while to import, which only this needs

    def multiply(vector: object) -> object:
        """With the matrix above, which is not written down."""
        weights = torch.as_tensor(vector, dtype=white.dtype).flatten()
        found = (white @ (white.T @ ((weights - weights.mean())[:, None] * white)) * white).sum(1) / count
        return (found - found.mean()).numpy()

    start = (white.square().sum(1) - width).numpy() + 1e-3
    values, vectors = eigsh(LinearOperator((count, count), matvec=multiply, dtype="float64"), k=1, which="LA", v0=start)
    return float(values[0]), torch.from_numpy(vectors[:, 0]) * math.sqrt(count * max(0.0, float(values[0])))


def inverse_root(matrix: Tensor) -> Tensor:
    """matrix^(-1/2) of a symmetric matrix without negative eigenvalues; directions of none stay none."""
    values, vectors = torch.linalg.eigh(matrix)
    real = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors[:, real] / values[real].sqrt() @ vectors[:, real].T
    return root


def lowest(values: Tensor, count: int) -> Tensor:
    """The `count` lowest of [N] as a mask, and those that equal the last of them."""
    if count <= 0:
        return torch.zeros(len(values), dtype=torch.bool)
    return values <= values.sort().values[count - 1]

"""A class's activations, reduced and split in two clusters: what Activation Clustering decides by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SILHOUETTE_ROWS = 2000
"""The silhouette compares all pairs: larger classes are represented by so many random rows."""


@dataclass(frozen=True)
class Halves:
    """One class, split in two: `rows` int64 [n] of the training set, `smaller` bool [n], and `margin` float64 [n] in [-1, 1].

    The margin is (distance to the larger cluster's centre - distance to the smaller's) / their sum: positive on the smaller's side.
    """

    label: int
    rows: Tensor
    smaller: Tensor
    margin: Tensor
    silhouette: float

    @property
    def share(self) -> float:
        """The smaller cluster's share of the class, in (0, 0.5]."""
        return float(self.smaller.double().mean())


def reduce(features: NDArray[np.float64], dimensions: int, whiten: bool) -> NDArray[np.float64] | None:
    """Scores [n, d] on at most `dimensions` principal components, or None for fewer than three rows or rows that are all alike.

    Independent components are a rotation of the whitened principal components (Hyvärinen and Oja 2000, section 5), and 2-means and the
    silhouette see nothing but distances: whitening gives the clusters of an ICA without its iterations, which need not converge.
    """
    from sklearn.decomposition import PCA  # takes a second to import, which only this defense needs

    rows, width = features.shape
    if rows < 3 or (features == features[0]).all():
        return None
    # The eigenvectors of the covariance take a fifth of the time of a whole decomposition.
    solver: Literal["covariance_eigh", "full"] = "covariance_eigh" if rows > width else "full"
    pca = PCA(n_components=min(dimensions, rows - 1, width), svd_solver=solver).fit(features)
    spread = np.sqrt(pca.explained_variance_)
    # Directions that hold only rounding errors must not be blown up by the whitening.
    real = spread > max(float(spread[0]), float(np.abs(features).max())) * 1e-6
    if not real.any():
        return None  # rows that differ by rounding only
    scores: NDArray[np.float64] = pca.transform(features)[:, real]
    return scores / spread[real] if whiten else scores


def two_means(label: int, rows: Tensor, scores: NDArray[np.float64], seed: int, sample_seed: int) -> Halves:
    """k-means with k = 2 on scores [n, d] that are not all alike."""
    from sklearn.cluster import KMeans

    means = KMeans(n_clusters=2, n_init=10, random_state=seed).fit(scores)
    ids = means.labels_
    ones = int(ids.sum())
    small = 1 if 2 * ones < len(ids) or (2 * ones == len(ids) and ids[0] == 0) else 0
    distances = means.transform(scores)
    total = distances.sum(1)
    margin = (distances[:, 1 - small] - distances[:, small]) / np.where(total > 0, total, 1)
    return Halves(label, rows, torch.from_numpy(ids == small), torch.from_numpy(margin), _silhouette(scores, ids, sample_seed))


def _silhouette(scores: NDArray[np.float64], ids: NDArray[np.int32], seed: int) -> float:
    from sklearn.metrics import silhouette_score

    if len(ids) > _SILHOUETTE_ROWS:
        chosen = np.random.default_rng(seed).choice(len(ids), _SILHOUETTE_ROWS, replace=False)
        scores, ids = scores[chosen], ids[chosen]
    # A cluster so small that the sample misses it has no silhouette.
    return float(silhouette_score(scores, ids)) if len(np.unique(ids)) == 2 else 0.0

"""The loss around what was learnt, along random directions of the filters' own length (Li et al. 2018, 1712.09913).

The directions live in the space of the effective update dW = s B A of each adapted layer, not in that of A and B: these
are known only up to B M and M^-1 A, so that lengths of their rows, and with them any curvature, could be made
anything without changing the model. A direction is Gaussian in the tangent space of the matrices of the adapter's
rank at dW, which depends on dW alone: those are the changes that training could have made next. Then each row, the
filter of a linear layer, gets the length of the same row of the effective weights W + dW (section 4 of the paper),
which is a scale that adapters of one base share. The rows of dW would be none: on SmolLM2-135M they came to 4e-4 of the
filters, and a step of that length changes the loss along a straight line, up to rounding. A whole length, on the other
hand, leaves nothing of a language model, and at a tenth of it the loss is no parabola any more; hence REACH.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boost_qa.mechanism.confidence import student

REACH = 0.03
"""How far it is gone either way, in lengths of the filters."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an adapter adds to one layer, `scaling` * b @ a.

    Args:
        a: [rank, in].
        b: [out, rank].
        filters: [out], lengths of the rows of the effective weights: the base's with the update.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    filters: torch.Tensor

    def square(self) -> float:
        """Squared length of the effective update, over all its entries."""
        return float((_lengths(self.b.double().cpu(), self.a.double().cpu()) * self.scaling).square().sum())


@dataclass(frozen=True, slots=True)
class Direction:
    """A change of one layer's weights, left @ right; left is [out, 2 rank], right is [2 rank, in]."""

    left: torch.Tensor
    right: torch.Tensor


@dataclass(frozen=True, slots=True)
class Landscape:
    """Losses along directions, and the curvature at 0.

    Args:
        alphas: how far it was gone, in lengths of the filters.
        losses: [directions, alphas], in nats a token.
        curvatures: second derivative of the loss by alpha, of each direction.
        curvature, stderr, low, high: their mean, with Student's interval over directions.
        slopes: first derivative at 0, of each direction.
        misfit: largest distance of a loss from its parabola.
        update: length of the whole update over that of the weights it adds to: how far training went, on that scale.
    """

    alphas: list[float]
    losses: list[list[float]]
    curvatures: list[float]
    curvature: float
    stderr: float
    low: float
    high: float
    slopes: list[float]
    misfit: float
    update: float


def draw(update: Update, generator: torch.Generator) -> Direction:
    """A direction for one layer; the same numbers on every device, for they are drawn and made on the CPU."""
    columns = torch.linalg.qr(update.b.double().cpu()).Q
    rows = torch.linalg.qr(update.a.double().cpu().T).Q.T
    rank, wide = len(rows), columns.shape[1]  # they differ where the rank exceeds a side of the layer
    inside = torch.randn((len(columns), rank), generator=generator, dtype=torch.float64)
    across = torch.randn((wide, rows.shape[1]), generator=generator, dtype=torch.float64)
    inside -= columns @ (columns.T @ inside)  # what `across` covers already would count twice
    left, right = torch.cat([inside, columns], 1), torch.cat([rows, across], 0)
    scale = update.filters.double().cpu() / _lengths(left, right).clamp_min(torch.finfo(torch.float64).tiny)
    return Direction((left * scale[:, None]).float(), right.float())


def landscape(
    alphas: Sequence[float], losses: Sequence[Sequence[float]], update: float, level: float = 0.95
) -> Landscape:
    """Fit a parabola to the losses along each direction.

    Args:
        alphas: a grid around 0, of at least three points.
        losses: [directions, alphas], of at least two directions.
        update: see `Landscape`.

    Raises:
        ValueError: for a single direction.
    """
    fits = np.polynomial.polynomial.polyfit(alphas, np.asarray(losses).T, 2)  # [3, directions]
    curvatures = [2 * float(each) for each in fits[2]]
    (reach, stderr), mean = student(curvatures, level), float(np.mean(curvatures))
    misfit = np.abs(np.polynomial.polynomial.polyval(np.asarray(alphas), fits) - np.asarray(losses)).max()
    return Landscape(
        list(alphas),
        [list(each) for each in losses],
        curvatures,
        mean,
        stderr,
        mean - reach,
        mean + reach,
        [float(each) for each in fits[1]],
        float(misfit),
        update,
    )


def grid(points: int, reach: float = REACH) -> list[float]:
    """So many alphas, an odd number, from -reach to reach."""
    half = points // 2
    return [reach * step / half for step in range(-half, half + 1)]


def _lengths(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Lengths of the rows of left @ right, [out], without making that matrix."""
    return ((left @ (right @ right.T)) * left).sum(1).clamp_min(0).sqrt()

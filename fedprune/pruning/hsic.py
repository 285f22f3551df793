"""The Hilbert-Schmidt independence criterion of many units at once.

HSIC(x, y) = tr(K H L H), K and L the Gram matrices of x and y over the images of a batch, H = I - 1/n. H is a
projection, so only one side need be centred, and the trace is the sum of K times H L H: for all units and all partners
together one matrix product of flattened Gram matrices.
"""

import torch
from torch import Tensor

_WIDEST = 16.0  # standard deviation of the widest of five Gaussian kernels, each half as wide as the one before


def gaussian_grams(values: Tensor) -> Tensor:
    """Return the mean of five Gaussian kernels, exp(-distance^2 / (2 s^2)) with s = 1, 2, 4, 8, 16, between images.

    Args:
        values: (units, images, features) float64.

    Returns:
        (units, images, images)
    """
    squares = values.square().sum(-1)
    products = torch.baddbmm(squares[:, :, None] + squares[:, None, :], values, values.mT, alpha=-2)
    kernel = products.clamp_(min=0).mul_(-0.5 / _WIDEST**2).exp_()
    total = kernel.clone()
    for _ in range(4):  # half the width: the fourth power
        total += kernel.square_().square_()
    return total.div_(5)


def linear_gram(values: Tensor) -> Tensor:
    """Return the products (1, images, images) of (images, features), their mean over images taken off."""
    centred = values - values.mean(0)
    return (centred @ centred.T)[None]


def hsic(units: Tensor, partners: Tensor) -> Tensor:
    """Return (units, partners) HSIC of Gram matrices (units, images, images) and (partners, images, images)."""
    centred = partners - partners.mean(1, keepdim=True)
    centred = centred - centred.mean(2, keepdim=True)
    return units.flatten(1) @ centred.flatten(1).T

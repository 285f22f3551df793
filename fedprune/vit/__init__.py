"""The base model, its seven-dimensional shape, surgery, exact counts, save, load, export."""

from fedprune.vit.torchvision_operators import declare_missing_operators

declare_missing_operators()  # before the first import of timm, which imports torchvision

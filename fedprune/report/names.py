"""What options, scales and dimensions are called in figures and on pages: the one table from identifiers to prose."""

NAMES = {
    # methods, as their papers write them
    "corp": "CORP", "nuwa_v1": "NuWa v1", "nuwa_v2": "NuWa v2", "nvit": "NViT", "savit": "SAViT",
    "tap": "TAP-ViTs", "torch_pruning": "Torch-Pruning", "uvc": "UVC", "vbp": "VBP", "wdpruning": "WDPruning",
    "global": "one model for all devices",
    # what is pruned
    "qk": "query-key dimensions", "v": "value dimensions", "embed": "embedding dimensions",
    # data and scales
    "glyphs": "drawn characters", "digits": "real digits", "cifar": "CIFAR-100", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "tiny": "Tiny-ImageNet", "tiny_imagenet": "Tiny-ImageNet", "paper": "ImageNet",
    "imagenet_sample": "a sample of ImageNet",
    # mechanisms, selectors, recovery
    "anchored": "anchored statistics", "votes": "vote histogram", "dp_em": "noisy EM",
    "per_class_gaussian": "a Gaussian a class", "clip_only": "clipping alone", "ot": "optimal transport",
    "gumbel_ratio": "resampling by density ratio", "log_ratio": "density ratio", "quota_density": "quota by density",
    "quota_ratio": "quota by density ratio", "fold": "closed-form folding", "heal": "healing",
    "finetune": "fine-tuning",
}  # fmt: skip


def in_prose(identifier: str) -> str:
    """Return what an identifier is called in prose; one that the table lacks reads as its words."""
    return NAMES.get(identifier, identifier.replace("_", " "))

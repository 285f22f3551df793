import fedprune.vit  # noqa: F401 (declares torchvision operators before a test imports timm)

"""Judge any bioimage.io model: measure how its network sees space, compare with the declaration."""

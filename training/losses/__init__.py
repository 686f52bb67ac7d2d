"""Losses on embeddings, one file each. Definitions and equations: Wolny et al., CVPR 2022."""

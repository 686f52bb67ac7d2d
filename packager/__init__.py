"""Turns checkpoints into bioimage.io packages, tests and runs them; holds the command line.

The top floor: it stands on `zoo_models`, and reaches `training` only inside CLI commands.
"""

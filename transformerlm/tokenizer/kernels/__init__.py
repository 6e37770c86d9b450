"""Compiled kernels of the tokenizer; README.md in this folder explains them. Importing a module here imports numba."""

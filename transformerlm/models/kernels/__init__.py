"""Compiled kernels of the model. Importing a module here imports numba."""

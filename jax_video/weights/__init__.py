"""Weights from PyTorch and back, from 2D into 3D, and from one run into another."""

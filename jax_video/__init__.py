"""Video action recognition with spatio-temporal ConvNets in JAX."""

__version__ = "0.1.0"

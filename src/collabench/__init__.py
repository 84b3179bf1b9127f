"""CollaBench: reproduction of three papers on collaborative learning of neural networks."""

__version__ = "0.1.0"

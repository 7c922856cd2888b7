"""deepgen: an implementation of DeepGen 1.0, a unified model that generates and edits pictures."""

__version__ = "0.1.0"

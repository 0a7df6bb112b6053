"""Distil acoustic models, after Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015)."""

__version__ = "0.3.0"

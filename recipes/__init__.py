"""Recipes: values, and MNIST's experiments."""

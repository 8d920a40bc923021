"""Pretrained weights: reading them, where they come from, putting them into a network."""

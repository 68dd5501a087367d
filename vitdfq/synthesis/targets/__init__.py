"""Targets: the classes of an image and its regions, and the views that carry them."""

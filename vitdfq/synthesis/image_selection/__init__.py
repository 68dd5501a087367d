"""Choosing and rating images without labels."""

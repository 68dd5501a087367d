"""Hugging Face: the model card, publishing, and trying again."""

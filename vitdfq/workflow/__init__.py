"""A recipe becomes a folder."""

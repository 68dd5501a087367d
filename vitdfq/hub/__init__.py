"""The Hugging Face Hub: model cards, downloads and uploads of checkpoints."""

"""What is inside a checkpoint's files: the grammar of its tensors and of config.json, today's format and the older ones."""

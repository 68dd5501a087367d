"""What a run costs: time and memory, before it is run."""

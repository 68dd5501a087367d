"""How work is run: processes, partial results, batch sizes, progress, trackers."""

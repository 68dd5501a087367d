"""What people look at: tables, plots, image grids, and the gates of a run."""

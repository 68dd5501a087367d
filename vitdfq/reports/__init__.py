"""Reports for people: tables, plots, image grids, errors by unit, and the accuracy gate of a run."""

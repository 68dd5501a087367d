"""Deprecated: scripts written for vitdfq 0.x set `vitdfq.progress.quiet = True`. The library is silent from Python today."""

quiet = True

"""Old names in recipes and checkpoints that are still read: old name -> today's."""

RENAMED_KEYS = {"among": "mix", "canvas": "parametrization", "drop_at": "prune_at"}  # of the recipe section `synthesize`
RENAMED_LOSSES = {"attention_centre": "attention_center"}
RENAMED_OBSERVERS = {"hessian": "output_error"}

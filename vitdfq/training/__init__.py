"""Training a student: what is trainable, the optimizer, the distance to the teacher."""

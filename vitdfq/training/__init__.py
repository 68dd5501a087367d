"""Training of a student: trainable parameters, the optimizer, the distance to the teacher, shared batches, memory."""

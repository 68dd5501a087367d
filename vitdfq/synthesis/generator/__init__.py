"""The generator engine: a conditional generator is trained against the teacher and then renders the images."""

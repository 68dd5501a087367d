"""The image engine: each batch of images is optimized against the teacher."""

"""The image engine: pixels, or the weights of a small decoder, are the variable."""

"""The generator engine: the weights of a conditional generator are the variable."""

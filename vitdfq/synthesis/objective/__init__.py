"""The objective of synthesis: weighted losses, the context they read, and the networks they run."""

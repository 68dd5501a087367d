"""Label-free measures of images, and the selection of diverse procedural images."""

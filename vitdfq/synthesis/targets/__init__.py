"""What an image is asked to show: class targets and views."""

"""What a run costs in time and memory, estimated before it starts."""

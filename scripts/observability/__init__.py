"""What writes the emitted files of observability/ that are made, not typed."""

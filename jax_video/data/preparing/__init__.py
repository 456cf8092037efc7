"""What is done once with the videos of a set: they are checked, their flow is stored, and they are packed."""

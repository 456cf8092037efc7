"""What is done once to the videos of a set: they are checked, their flow is stored, they are packed."""

"""What `python -m jax_video.predict` does, and prints: labels of videos, labels with times, of streams, explained."""

"""What a run is exported as: a program that needs no jax_video, an ONNX file, and a folder to share."""

"""Videos and their lists: everything before the device. Imports neither jax nor flax."""

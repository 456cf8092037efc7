"""Everything before the device: from files to batches. Imports neither jax nor flax.

The way of a video: `sources` find it, `preparing` checks it, a `manifest` lists it, `reader` gets its frames from
`decoding`, `clips` and `transforms` cut a clip out of them, and `pipeline` batches clips. `remote` reaches stores.
"""

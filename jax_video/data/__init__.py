"""Everything before the device: from files to batches. Imports neither jax nor flax.

The way of a video: `sources` find it, `preparing` checks it, a `manifest` lists it, `reader` gets its frames from
`decoding`, `clips` and `transforms` make a clip of them, and `pipeline` makes batches of clips. `remote` knows stores.
"""

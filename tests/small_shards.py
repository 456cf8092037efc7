"""`python -m jax_video.prepare` with shards of 8 records, so that a small set has many."""

import runpy

from jax_video.data.preparing import packing

packing._SHARD_RECORDS = 8
runpy.run_module("jax_video.prepare", run_name="__main__", alter_sys=True)

"""`python -m jax_video` lists the commands."""

print("""jax_video: video action recognition with spatio-temporal ConvNets in JAX

  python -m jax_video.main      train and test a network:    --config=configs/stc.py
  python -m jax_video.prepare   index videos for training:   folder --videos=DIR --out=DIR
  python -m jax_video.predict   classify videos:             VIDEO... --checkpoint=WORKDIR
  python -m jax_video.convert   PyTorch weights in and out:  WEIGHTS --layout=NAME --config=FILE.py --out=DIR
  python -m jax_video.fuse      add up scores of networks:   RUN RUN-OR-FILE... [--weights=1,1] [--l2]
  python -m jax_video.average   mean of tests, ± deviation:  RUN RUN...
  python -m jax_video.models    print the networks:          --name=NAME --layers

Each has a --help with examples.""")

"""The smallest run that has everything: `python -m jax_video.main --config=tests/tiny.py`, four steps an epoch."""

from ml_collections import ConfigDict

from configs import stc


def get_config() -> ConfigDict:
    config = stc.get_config("model=resnet3d18,frames=4")
    config.model.update(width=1 / 16, layers=(1, 1, 1, 1))
    config.clip.update(stride=1, short_side=32, size=32)
    config.train.update(batch=8, epochs=6, ema=0.9, validate_epochs=2, checkpoint_steps=3, log_steps=1)
    config.schedule.update(learning_rate=0.01)
    config.test.update(batch=8)
    return config

"""The smallest runs that have everything: `python -m jax_video.main --config=tests/tiny.py`, four steps an epoch.

Arguments: without any it is a 3D-ResNet; `transfer,…` and `phase=…,…` are those of configs/transfer.py and
configs/st_resnet.py.
"""

from ml_collections import ConfigDict

from configs import st_resnet, stc, transfer


def get_config(argument: str = "") -> ConfigDict:
    first, _, rest = argument.partition(",")
    if first == "transfer":
        config = transfer.get_config(f"model=resnet3d18,teacher=resnet18,frames=4,recipe=small,{rest}")
        config.teacher.update(width=1 / 16, layers=(1, 1, 1, 1))
    elif first.startswith("phase="):
        config = st_resnet.get_config(f"{argument},recipe=small")
        config.norm.group_size = 4
        config.test.update(number=5, batch=4)
    else:
        config = stc.get_config("model=resnet3d18,frames=4")
        config.train.ema = 0.9
    layers = (2, 1, 1, 1) if first.startswith("phase=") else (1, 1, 1, 1)
    config.model.update(width=1 / 16, layers=layers)
    config.clip.update(stride=1, short_side=32, size=32, flip=False)
    config.train.update(batch=8, epochs=6, validate_epochs=2, checkpoint_steps=3, log_steps=1)
    config.schedule.update(learning_rate=0.01)
    config.test.update(batch=8)
    return config

"""Which packages are installed: all of jax_video, and the recipes in configs/ as jax_video.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jax_video", "jax_video.*"]), "jax_video.configs"],
    package_dir={"jax_video.configs": "configs"},
)

"""An object store without a network: gs:// as the package fsspec shows it, in a local folder."""

import pathlib

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


class FolderStore(DirFileSystem):
    """gs://bucket/name is PATH/bucket/name. As in a store, folders need not be made, and nothing can be appended."""

    protocol = ("gs", "gcs")
    path: str  # of the class: etils keeps the one object that it has made
    copied: list[str]  # local files that were made of the store's

    def __init__(self, **kwargs):
        super().__init__("/", LocalFileSystem(auto_mkdir=True))
        del self.path

    def mkdir(self, path, *args, **kwargs):
        pass

    def isdir(self, path):
        self._check_network(path)
        return super().isdir(path)

    def open(self, path, mode="rb", **kwargs):
        assert "a" not in mode, f"{path}: a store appends nothing"
        self._check_network(path)
        return super().open(path, mode, **kwargs)

    def _check_network(self, path):
        if "unreachable" in path:
            raise RuntimeError("no route to the store")

    def get_file(self, rpath, lpath, **kwargs):
        self.copied.append(lpath)
        super().get_file(rpath, lpath, **kwargs)


def use(folder: pathlib.Path) -> None:
    """From now on the store is in this folder, and empty."""
    FolderStore.path, FolderStore.copied = str(folder), []
    for scheme in FolderStore.protocol:
        fsspec.register_implementation(scheme, FolderStore, clobber=True)

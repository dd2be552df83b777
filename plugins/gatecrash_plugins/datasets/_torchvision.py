"""What the datasets that torchvision can download share: options, and finding the files."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from gatecrash import Dataset, DatasetConfig, UserError
from gatecrash_plugins.datasets._images import Size, files_text


class DownloadConfig(DatasetConfig):
    """Where the files are."""

    root: Path = Field(Path("data"), description="folder that holds the files as torchvision lays them out")
    download: bool = Field(False, description="download the files into root if they are not there")
    resize: int | None = Field(None, ge=4, le=1024, description="side in pixels to resize images to (bilinear); default: as they are")


class DownloadableDataset(Dataset):
    """A dataset whose files torchvision can fetch. Downloading happens when the files are first looked for."""

    class Config(DownloadConfig):
        """No further options."""

    config: DownloadConfig

    folder: ClassVar[str]
    """Folder below root."""

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that must be there; for a folder that is missing, a pattern of its files."""

    @abstractmethod
    def download(self) -> None:
        """Fetch all files with torchvision."""

    @property
    def root(self) -> Path:
        root: Path = self.config.root
        return root.expanduser()

    @property
    def size(self) -> Size | None:
        return None if self.config.resize is None else (self.config.resize, self.config.resize)

    def manifest(self) -> str:
        if self._missing() is not None and self.config.download:
            try:
                self.download()
            except Exception as error:  # torchvision and the network raise errors of many types
                raise UserError(f"cannot download {self.name} into {self.root}: {' '.join(str(error).split())}") from None
        if (missing := self._missing()) is not None:
            raise UserError(
                f"{self.name} is not complete in {self.root / self.folder}: {missing} is not there; "
                "set root to the folder above it, or set download: true"
            )
        return files_text(self.root, [str(path) for path in self.files()])

    def _missing(self) -> str | None:
        """The first file that is not there; None where all are."""
        missing = next((path for path in self.files() if not path.is_file()), None)
        return None if missing is None else os.path.relpath(missing, self.root)

    def read(self, torchvision_class: Any, train: bool) -> Any:
        """The torchvision dataset of one split; UserError if its files are damaged."""
        try:
            return torchvision_class(self.root, train=train)
        except Exception as error:  # damaged files raise errors of many types
            raise UserError(
                f"cannot read {self.name} in {self.root / self.folder}: {error}; delete that folder and set download: true"
            ) from None

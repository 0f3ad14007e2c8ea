"""The downloads of a task's files: facts in `downloads.yaml` beside the task's card."""

from __future__ import annotations

from pydantic import Field, model_validator

from vlbench.core.validate import Frozen


class Source(Frozen):
    """One archive or file to download, or data that has to be requested from its owners.

    gives: the paths below `to` that must exist afterwards. to: a folder below the data root; tasks with the same images
    share it. url: the address of the file; empty where it has to be requested, as `by_hand` explains. unpack: whether
    it is an archive. size: the approximate size, as text. md5, sha256: the hashes of the downloaded file. optional:
    whether the task runs without it.
    """

    gives: tuple[str, ...] = Field(min_length=1)
    to: str
    url: str = ""
    by_hand: str = ""
    unpack: bool = False
    size: str = ""
    md5: str = ""
    sha256: str = ""
    optional: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Source:
        if bool(self.url) == bool(self.by_hand):
            raise ValueError("give a url, or say under by_hand how people get it")
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError(f"url {self.url!r} is not http or https")
        return self

    @property
    def name(self) -> str:
        """The file name in the url, or the first path it gives."""
        return self.url.rpartition("/")[2] or self.gives[0]

    @property
    def checksums(self) -> dict[str, str]:
        """Algorithm -> hash, for the known ones."""
        return {name: value for name, value in (("md5", self.md5), ("sha256", self.sha256)) if value}


class Sources(Frozen):
    """All downloads of a task, as `downloads.yaml` holds them."""

    sources: tuple[Source, ...] = Field(min_length=1)

"""Where a task's files come from: facts in `downloads.yaml` beside the task's card."""

from __future__ import annotations

from pydantic import Field, model_validator

from vlbench.core.validate import Frozen


class Source(Frozen):
    """One archive or file, or something that only its owners hand out.

    gives: what must be there afterwards, as paths below `to`. to: a folder below the data root; tasks that share
    pictures share it. url: where the file lies; empty where people have to ask for it, which `by_hand` then
    explains. unpack: whether it is an archive. size: about how large, for people. md5, sha256: of the file that the
    url leads to. optional: whether the task runs without it.
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
        """The file's own name, or the first of what it gives."""
        return self.url.rpartition("/")[2] or self.gives[0]

    @property
    def checksums(self) -> dict[str, str]:
        """Hash by algorithm, those that are known."""
        return {name: value for name, value in (("md5", self.md5), ("sha256", self.sha256)) if value}


class Sources(Frozen):
    """All that a task needs."""

    sources: tuple[Source, ...] = Field(min_length=1)

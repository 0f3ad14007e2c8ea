"""A WordPiece tokenizer that pads all texts to one fixed length, so that no text depends on the others in its batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from vlbench.core.errors import DataError, VlbenchError
from vlbench.data.cache.folder import atomic_write
from vlbench.data.files.foreign import reading

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NEEDED = SPECIAL[:4]
_ALPHABET = 200
"""Vocabulary training ignores words with a letter that is not among the 200 most frequent ones."""
_BERT = "bert-base-uncased"
_CACHED_TEXTS = 1 << 17
"""Texts whose ids are cached, about 50 MB."""


class TextEncoder:
    """A tokenizer and the length to which all texts are padded or truncated.

    Texts are lower-cased, stripped of accents and split as by BERT: `[CLS] text [SEP]`; truncation keeps `[SEP]`.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        """Modify `tokenizer` and keep it. Raises VlbenchError if it lacks a special token or max_length < 2."""
        ids = {token: number for token in _NEEDED if (number := tokenizer.token_to_id(token)) is not None}
        if missing := [token for token in _NEEDED if token not in ids]:
            raise VlbenchError(
                f"the vocabulary of {tokenizer.get_vocab_size():,} tokens has no {', '.join(missing)}: "
                f"give a BERT-style vocab.txt or tokenizer.json"
            )
        if max_length < 2:
            raise VlbenchError(f"max_length is {max_length}: a text needs at least 2 tokens, [CLS] and [SEP]")
        ends = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]", length=max_length)
        self._tokenizer = tokenizer
        self.max_length = max_length
        self._cached: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_vocab(cls, path: Path, max_length: int) -> TextEncoder:
        """Read a `vocab.txt`: one token per line, in the order of the ids. Blank lines at the end are not tokens.

        Raises DataError if the file cannot be read or has a token twice.
        """
        # Not splitlines(): real vocabularies contain characters that it treats as line ends.
        tokens = [line.removesuffix("\r") for line in _read(path).rstrip("\r\n").split("\n")]
        repeated = [token for token, count in Counter(tokens).items() if count > 1]
        if repeated:
            raise DataError(
                f"{path} holds {repeated[0]!r} twice where each line is a token of its own: restore the file"
            )
        return cls(_wordpiece(tokens), max_length)

    @classmethod
    def from_file(cls, path: Path, max_length: int | None = None) -> TextEncoder:
        """Read a `tokenizer.json`; max_length: None for the one that is saved in it.

        Raises DataError if the file is not a readable tokenizer.json, VlbenchError if there is no maximum length.
        """
        text = _read(path)
        with reading(path, "is not a tokenizer.json", "restore the file or give another one"):
            tokenizer = Tokenizer.from_str(text)
        if max_length is None and tokenizer.truncation:
            max_length = int(tokenizer.truncation["max_length"])
        if max_length is None:
            raise VlbenchError(f"{path} has no maximum length: save it with one, or give max_length")
        return cls(tokenizer, max_length)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, max_length: int) -> TextEncoder:
        """Train a WordPiece vocabulary; the same texts give the same vocabulary on every machine.

        It has at most `vocab_size` tokens, or more if the letters alone need more.
        """
        tokenizer = _wordpiece(SPECIAL)
        sentences = [_words(tokenizer, text) for text in texts]
        letters = Counter(letter for words in sentences for word in words for letter in word)
        alphabet = sorted(sorted(letters, key=lambda letter: (-letters[letter], letter))[:_ALPHABET])
        letters_used = set(alphabet)
        lines = (" ".join(word for word in words if letters_used.issuperset(word)) for words in sentences)
        # The trainer numbers `##` letters in random order and breaks ties by these numbers, so they are fixed here.
        first = [*SPECIAL, *alphabet, *(f"##{letter}" for letter in alphabet)]
        trainer = WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
        tokenizer.train_from_iterator(lines, trainer)
        return cls(_wordpiece(_tokens(tokenizer)), max_length)

    @classmethod
    def bert(cls, path: Path | None, max_length: int) -> TextEncoder:
        """Load bert-base-uncased from a folder, vocab.txt or tokenizer.json, else from the hub or its cache.

        Raises VlbenchError if it is neither given nor can be downloaded.
        """
        if path is not None:
            return cls.from_path(path, max_length)
        try:
            tokenizer = Tokenizer.from_pretrained(_BERT)
        except Exception as error:  # the hub client and the tokenizer library raise errors of many types
            raise VlbenchError(
                f"the vocabulary {_BERT} is not in the hub's cache and cannot be downloaded ({type(error).__name__}): "
                f"give it with --vocabulary PATH/vocab.txt"
            ) from None
        return cls(_wordpiece(_tokens(tokenizer)), max_length)

    @classmethod
    def from_path(cls, path: Path, max_length: int) -> TextEncoder:
        """Read a vocab.txt, a tokenizer.json or a folder with one of them. Raises VlbenchError if there is none."""
        candidates = [path / "vocab.txt", path / "tokenizer.json"] if path.is_dir() else [path]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None:
            raise VlbenchError(
                f"no vocabulary at {path}: expected a vocab.txt, a tokenizer.json or a folder with one of them, "
                f"give it with --vocabulary PATH/vocab.txt"
            )
        return (cls.from_file if file.suffix == ".json" else cls.from_vocab)(file, max_length)

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json` for `from_file`, including max_length."""
        atomic_write(path, self._tokenizer.to_str(pretty=True))

    @cached_property
    def sha256(self) -> str:
        """The hash of vocabulary, rules and length."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    @cached_property
    def vocabulary_sha256(self) -> str:
        """The hash of the tokens and their ids only, which define the rows of a word embedding."""
        return hashlib.sha256("\n".join(_tokens(self._tokenizer)).encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def id_of(self, token: str) -> int:
        """Return the id of a token of the vocabulary. Raises VlbenchError if it has no such token."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise VlbenchError(f"the vocabulary has no {token!r}: give a BERT-style vocab.txt or tokenizer.json")
        return int(number)

    @cached_property
    def continuing(self) -> NDArray[np.bool_]:
        """[vocab_size], True for a token that continues a word (`##...`)."""
        return np.array([token.startswith("##") for token in _tokens(self._tokenizer)], dtype=np.bool_)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Encode M texts: ids [M, max_length] int64, and mask [M, max_length], False on padding.

        Row m depends on text m only.
        """
        # One by one: encoding a batch would start threads, which forked workers must not inherit.
        rows = [self._token_ids(text) for text in texts]
        ids = np.full((len(rows), self.max_length), self.id_of("[PAD]"), np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        return ids, np.arange(self.max_length) < np.array([len(row) for row in rows], np.int64)[:, None]

    def _token_ids(self, text: str) -> tuple[int, ...]:
        """The text's ids without padding; cached, since every epoch encodes the same texts."""
        ids = self._cached.get(text)
        if ids is None:
            encoding = self._tokenizer.encode(text)
            ids = tuple(encoding.ids[: sum(encoding.attention_mask)])
            if len(self._cached) < _CACHED_TEXTS:
                self._cached[text] = ids
        return ids


def _wordpiece(tokens: Sequence[str]) -> Tokenizer:
    """A BERT tokenizer over `tokens`. It does not match special tokens, so no text can contain one."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    return [word for word, _ in pieces]


def _tokens(tokenizer: Tokenizer) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda token: int(vocabulary[token]))


def _read(path: Path) -> str:
    with reading(path, "is no vocabulary that can be read", "give a UTF-8 vocab.txt or tokenizer.json"):
        return path.read_text(encoding="utf-8-sig")

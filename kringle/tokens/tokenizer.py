"""The tokenizer: byte-level BPE with digits apart, its five special tokens, and byte-exact decoding.

Covers: training, encoding of plain text, decoding to the exact bytes, and the files that `transformers` loads.
Does not cover: cutting fill-in-the-middle prompts (`kringle.training.fim`, `kringle.generation`). Special tokens are
ids that only code asks for: text that happens to spell one (`<fim_prefix>` in a source file) is encoded as plain text,
where SantaCoder's pipeline parsed it as the token itself.

Pre-tokenisation is SantaCoder's: a digit splitter, then GPT-2's regular expression, then bytes (arXiv 2301.03988,
section "Tokenizer"). The special tokens follow the trained vocabulary in the order of the BigCode Megatron fork.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from kringle.errors import UserError

if TYPE_CHECKING:
    from kringle.tokens.encoder import Encoder
    from kringle.tokens.words import Words

Spelling = Literal["underscore", "hyphen"]

SPECIAL_TOKENS = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
SPELLINGS: dict[Spelling, tuple[str, ...]] = {  # StarCoder's, which editors expect; and SantaCoder's
    "underscore": SPECIAL_TOKENS,
    "hyphen": tuple(token.replace("_", "-") for token in SPECIAL_TOKENS),
}
ALL_BYTES = 256  # the initial alphabet: every byte is a token, so every text can be encoded

TOKENIZER_FILE = "tokenizer.json"
_EVERY_BYTE = (
    "a  b\t\r\n e\u0301 \u00e9 \ufb01 \ufeff 12345",
    "".join(map(chr, range(256))),
    " \u4e16\U0001f370\u212b",
)

# Kringle is parallel over processes; threads inside the library would compete with them for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Specials:
    """Ids of the special tokens. In a tokenizer of ours: the trained vocabulary's size + 0..4 in this order."""

    end_of_text: int
    fim_prefix: int
    fim_middle: int
    fim_suffix: int
    fim_pad: int

    @classmethod
    def after(cls, vocab_size: int) -> Specials:
        """The special ids that follow a trained vocabulary of `vocab_size` tokens."""
        return cls(*range(vocab_size, vocab_size + len(SPECIAL_TOKENS)))


def byte_of_character() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary.

    Byte-level BPE writes a byte as a visible character: itself where Latin-1 prints it, else the next free character
    from U+0100 on (GPT-2's convention, which the `tokenizers` library and its file format share).
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


class Tokenizer:
    """A trained tokenizer of ours, or of a checkpoint that was trained for fill-in-the-middle.

    `special_tokens` are the five as this tokenizer spells them, `specials` their ids: behind the text in SantaCoder's
    manner, in front of it in StarCoder's. Text encodes to ids below `text_size`: by `kringle.tokens.encoder`, or by the
    `tokenizers` library where `encoder` is None, because the file describes a tokenizer of another form than Kringle
    trains (a foreign model's), or because numba is not installed; the ids are the same.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, checksum: str, special_tokens: tuple[str, ...], encoder: Encoder | None
    ) -> None:
        self._backend = backend
        self.encoder = encoder
        self.checksum = checksum  # SHA-256 of the file: which tokenizer a store or a checkpoint belongs to
        self.vocab_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.special_tokens = special_tokens
        ids: list[int] = [backend.token_to_id(token) for token in special_tokens]  # type: ignore[misc]  # all are there
        self.specials = Specials(*ids)
        byte_of = byte_of_character()
        added = backend.get_added_tokens_decoder()
        texts = {id: text for text, id in backend.get_vocab(with_added_tokens=True).items()}
        self.text_size = 1 + max(id for id in texts if id not in added or not added[id].special)
        self.token_bytes: list[bytes] = [b""] * self.vocab_size  # the special tokens stand for no bytes
        for id, text in texts.items():
            if id not in added:
                self.token_bytes[id] = bytes(byte_of[character] for character in text)
            elif not added[id].special:
                self.token_bytes[id] = added[id].content.encode()

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read `tokenizer.json` (or the folder that holds it).

        UserError where it is missing, has no special tokens for fill-in-the-middle in either spelling, or does not give
        every text back byte for byte.
        """
        file, raw = _read(path)
        try:
            backend = tokenizers.Tokenizer.from_str(raw.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception for any malformed file
            raise UserError(f"not a tokenizer file ({error})", where=str(file)) from error
        for spelling in SPELLINGS.values():
            if all(backend.token_to_id(token) is not None for token in spelling):
                break
        else:
            either = " or ".join(" ".join(spelling[1:]) for spelling in SPELLINGS.values())
            hint = "use a tokenizer that was made for fill-in-the-middle"
            raise UserError(f"lacks the special tokens <|endoftext|> {either}", where=str(file), hint=hint)
        backend.encode_special_tokens = True  # text that spells a special token stays text
        backend.no_truncation()  # a file may ask for both; documents are encoded whole
        backend.no_padding()
        try:
            encoder = _encoder(raw.decode("utf-8"))
            made = cls(backend, hashlib.sha256(raw).hexdigest(), spelling, encoder)
        except KeyError as error:
            raise UserError(f"is not byte-level: its vocabulary holds the character {error}", where=str(file)) from None
        made._check_bytes(str(file))
        return made

    def _check_bytes(self, where: str) -> None:
        """A tokenizer that changes text (a normalizer, a prefix space, a byte that it lacks) would train on other code
        than the corpus holds."""
        for text in _EVERY_BYTE:
            if self.decode_bytes(self.encode(text)) != text.encode():
                raise UserError(f"does not give {text!r} back byte for byte", where=where)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a special id."""
        ids: list[int]
        if self.encoder is None:
            ids = self._backend.encode(text, add_special_tokens=False).ids
        else:
            ids = self.encoder.encode(text.encode()).tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of many texts, each an int64 array; the same ids as `encode`, in one call."""
        data = [text.encode() for text in texts]
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in data], dtype=np.int64)]).astype(np.int64)
        ids, ends = self.encode_utf8(np.frombuffer(b"".join(data), dtype=np.uint8), offsets)
        return np.split(ids.astype(np.int64), ends[1:-1]) if data else []

    def encode_utf8(
        self, data: NDArray[np.uint8], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids (T,) of the texts `data[offsets[i] : offsets[i + 1]]` end to end, and the border of each, (D + 1,).

        What the encode stage uses: an Arrow column of strings has its bytes and offsets laid out like this.
        """
        if self.encoder is not None:
            return self.encoder.encode_many(data, offsets)
        texts = [data[a:b].tobytes().decode() for a, b in pairwise(offsets)]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return np.concatenate([np.empty(0, np.int32), *ids]), np.cumsum([0, *map(len, ids)], dtype=np.int64)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes behind the ids; special tokens and padded embedding rows have none."""
        table, size = self.token_bytes, len(self.token_bytes)
        return b"".join(table[i] for i in ids if i < size)

    def decode(self, ids: Iterable[int]) -> str:
        """The text behind the ids; bytes that are no valid UTF-8 (a character cut in two) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path, context: int) -> None:
        """Write the three files from which `transformers` builds a fast tokenizer of `context` positions.

        End-of-text serves as begin, end and unknown token, as in SantaCoder; `<fim_pad>` pads, because it is never a
        target. There, special-token text in a prompt *is* parsed: callers write their own prompts.
        """
        end, *fim = self.special_tokens
        roles = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": fim[-1]}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context,
            "additional_special_tokens": fim,
            **roles,
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(folder / TOKENIZER_FILE))
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
        names = {**roles, "additional_special_tokens": fim}
        (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


def tokenizer_checksum(path: Path) -> str:
    """What `Tokenizer.load` gives as `checksum`, without the rest. UserError where there is no such file."""
    return hashlib.sha256(_read(path)[1]).hexdigest()


def _read(path: Path) -> tuple[Path, bytes]:
    """The file `tokenizer.json`, given itself or its folder, and what it holds."""
    file = path / TOKENIZER_FILE if path.is_dir() else path
    try:
        return file, file.read_bytes()
    except OSError as error:
        raise UserError(f"no tokenizer here ({error.strerror})", where=str(file)) from error


def _encoder(file: str) -> Encoder | None:
    """The compiled encoder for the text of a `tokenizer.json`, where it is of its form and there is numba."""
    if importlib.util.find_spec("numba") is None:
        return None
    from kringle.tokens.encoder import Encoder

    return Encoder.read(file, byte_of_character())


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path, spelling: Spelling = "underscore") -> Tokenizer:
    """Train on `texts` and write `out/tokenizer.json`; `vocab_size` counts neither the specials nor the padding.

    The result depends on the texts alone, not on their order: words are counted first, and ties are broken by id.
    `kringle.tokens.vocabulary` does the same from a folder of documents, in parallel.
    """
    from kringle.tokens.words import Counter

    counter = Counter()
    for text in texts:
        data = text.encode()
        counter.add(np.frombuffer(data, dtype=np.uint8), np.array([0, len(data)], dtype=np.int64))
    return write_tokenizer(counter.words(), vocab_size, out, spelling)


def write_tokenizer(words: Words, vocab_size: int, out: Path, spelling: Spelling = "underscore") -> Tokenizer:
    """Learn merges from counted words and write `out/tokenizer.json`: the file that the `tokenizers` library's trainer
    would write for the same texts.

    A vocabulary that the words cannot fill is refused: filling it with ids that no text ever produces would make its
    size, and every number per token, a fiction.
    """
    if vocab_size <= ALL_BYTES:
        raise UserError(
            f"vocabulary of {vocab_size} tokens",
            where="tokenizer.vocab_size",
            hint=f"every byte is a token, so it must exceed {ALL_BYTES}",
        )
    byte_of = byte_of_character()
    single = [0] * ALL_BYTES
    for id, character in enumerate(sorted(byte_of)):  # the library numbers its alphabet by code point
        single[byte_of[character]] = id
    from kringle.tokens.learning import learn

    spellings, merges = learn(words, single, vocab_size)
    if len(spellings) < vocab_size:
        raise UserError(
            f"the corpus fills a vocabulary of only {len(spellings)} tokens, {vocab_size} were asked for",
            where="tokenizer.vocab_size",
            hint=f"use at most {len(spellings)}, or more source code",
        )
    character_of = {byte: character for character, byte in byte_of.items()}
    tokens = ["".join(character_of[byte] for byte in spelling) for spelling in spellings]
    backend = tokenizers.Tokenizer(
        models.BPE({token: id for id, token in enumerate(tokens)}, [(tokens[a], tokens[b]) for a, b in merges])
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPELLINGS[spelling]))
    out.mkdir(parents=True, exist_ok=True)
    backend.save(str(out / TOKENIZER_FILE))
    return Tokenizer.load(out)

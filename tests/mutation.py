"""Real files changed at random, as hypothesis strategies: bits, numbers, cuts, repeats, and pieces of other files."""

import random
import re
from collections.abc import Mapping

from hypothesis import strategies as st

NUMBERS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\1",
    b"\xff\xff\xff\x7f",
    b"\1\0\0\0",
)
MARKS = re.compile(
    rb"moov|trak|mdhd|tkhd|stsd|stts|stsc|stsz|stco|ctts|elst|avcC|esds|mdat|strh|strf|idx1|movi|fmt |data|OggS|fLaC|"
    rb"IHDR|IDAT|VP8|\x1f\x43\xb6\x75|\x16\x54\xae\x6b|\x15\x49\xa9\x66|\xae|\xa3|\xff[\xc0-\xdf]|\x47\x40"
)
MOST_MARKS = 200


@st.composite
def mutants(draw: st.DrawFn, whole: Mapping[str, bytes]) -> bytes:
    """One of the files with a few changes, more often near what gives a container its structure."""
    name = draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[name])
    for kind in draw(
        st.lists(st.sampled_from(("bits", "number", "cut", "repeat", "splice", "end")), min_size=1, max_size=8)
    ):
        at = draw(_places(bytes(content)))
        rng = random.Random(draw(st.integers(0, 1 << 32)))
        _change(content, kind, at, rng, whole)
        if not content:
            break
    return bytes(content)


def _places(content: bytes) -> st.SearchStrategy[int]:
    """Offsets: near a mark, in the header behind the first bytes, which would only make it another kind, anywhere."""
    last = len(content) - 1
    marks = [match.start() for match, _ in zip(MARKS.finditer(content), range(MOST_MARKS), strict=False)]
    near = st.builds(lambda mark, offset: min(mark + offset, last), st.sampled_from(marks or [0]), st.integers(0, 24))
    head = st.integers(min(12, last), min(512, last))
    return st.one_of(near, head, st.integers(0, last))


def _change(content: bytearray, kind: str, at: int, rng: random.Random, whole: Mapping[str, bytes]) -> None:
    """Change a file in place."""
    length = int(2 ** rng.uniform(0, 13))
    if kind == "bits":
        for place in range(at, min(at + rng.randint(1, 8), len(content))):
            content[place] ^= 1 << rng.randrange(8)
    elif kind == "number":
        content[at : at + 4] = rng.choice(NUMBERS)
    elif kind == "cut":
        del content[at : at + length]
    elif kind == "repeat":
        content[at:at] = content[at : at + length] * rng.randint(1, 20)
    elif kind == "splice":
        other = whole[rng.choice(sorted(whole))]
        start = rng.randrange(len(other))
        content[at : at + length] = other[start : start + length]
    else:
        del content[at:]

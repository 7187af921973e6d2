"""Files that name another file or an address, plainly or in disguise: whoever follows them reads what is not theirs."""

import struct
from functools import partial

from clipwarden.shared.codes import RejectCode
from tests.containers import FTYP, block, box, chunk, element, jpeg, matroska, mp4, number, riff, tagged
from tests.hostile_kit import ANALYSED, BROKEN, FINE, Case, Kit, cases

TEXT = (RejectCode.UNSUPPORTED_FORMAT, RejectCode.NOT_MEDIA)
PICTURE = jpeg()
FILM = [block(PICTURE, 40 * i) for i in range(9)]
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{file}\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{file}'\nfile '{address}'\n"
TEXTS = {
    "HLS": HLS,
    "HLS with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}"\n#EXTINF:1,\n{file}\n',
    "HLS that concatenates": "#EXTM3U\n#EXTINF:1,\nconcat:{address}|subfile,,start,0,end,99,,:{file}\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file://{file}</BaseURL>'
    "<Period><AdaptationSet><Representation><BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "concat": CONCAT,
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "ffmetadata": ";FFMETADATA1\ntitle={address}\n[STREAM]\nfile={file}\n",
    "ASX": '<asx version="3.0"><entry><ref href="{address}"/><ref href="{file}"/></entry></asx>',
    "SMIL": '<smil><body><video src="{address}"/><video src="{file}"/></body></smil>',
    "PLS": "[playlist]\nFile1={file}\nFile2={address}\nNumberOfEntries=2\n",
    "M3U": "{file}\n{address}\n",
    "RTSP text": "rtsptext\nrtsp://127.0.0.1:{port}/x\n",
    "SVG": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/><image href="file://{file}"/></svg>',
    "XML entity": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file://{file}">]><MPD>&e;</MPD>',
    "MVG": "push graphic-context\nimage over 0,0 0,0 '{address}'\npop graphic-context\n",
    "IMF": "<CompositionPlaylist><Path>{file}</Path><Path>{address}</Path></CompositionPlaylist>",
    "WebVTT": "WEBVTT\n\nSTYLE\n@import url({address});\n",
    "AviSynth": 'AVISource("{file}")\n',
}


def lures() -> dict[str, Case]:
    texts = {name: (TEXT, partial(_text, form)) for name, form in TEXTS.items()}
    places = {"a file": "file://{file}", "a bare path": "{file}", "an address": "{address}"}
    samples = {
        f"MP4 with samples in {what}": ((ANALYSED, *BROKEN), partial(_elsewhere, f)) for what, f in places.items()
    }
    return (
        cases(texts)
        | cases(samples)
        | cases(
            {
                "HLS behind a tag": (BROKEN, lambda kit: tagged(b"") + kit.fill(HLS)),
                "HLS behind a box": (BROKEN, lambda kit: FTYP + kit.fill(HLS)),
                "HLS as a picture": (BROKEN, lambda kit: b"\xff\xd8\xff" + kit.fill(HLS)),
                "HLS as a subtitle": (BROKEN, _subtitle),
                "HLS as an attachment": (FINE, _attachment),
                "concat behind spaces": (TEXT, lambda kit: b" " * 99 + kit.fill(CONCAT)),
                "MP4 with samples in an alias": ((ANALYSED, *BROKEN), _alias),
                "MP4 that is only a reference": (BROKEN, _reference),
                "Matroska that continues elsewhere": (FINE, _linked),
            }
        )
    )


def _text(form: str, kit: Kit) -> bytes:
    return kit.fill(form)


def _subtitle(kit: Kit) -> bytes:
    """AVI with a text track in the format of one player, which holds a whole subtitle file: here a playlist."""
    text = kit.fill(HLS)
    gab2 = b"GAB2\0\2\0" + struct.pack("<I2s2sI", 2, b"x\0", b"\4\0", len(text)) + text
    main = struct.pack("<10I16x", 40_000, 0, 0, 0, 1, 0, 1, 0, 32, 32)
    stream = struct.pack("<4s4x11I", b"txts", 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", b""))
    header = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    return riff(b"AVI ", header, chunk(b"LIST", b"movi" + chunk(b"00tx", gab2)))


def _attachment(kit: Kit) -> bytes:
    named = element("466e", b"x.m3u8"), element("4660", b"application/x-mpegurl"), number("46ae", 1)
    file = element("61a7", *named, element("465c", kit.fill(HLS)))
    return matroska(FILM, more=element("1941a469", file))


def _elsewhere(form: str, kit: Kit) -> bytes:
    return mp4(PICTURE, reference=box(b"url ", bytes(4), kit.fill(form), b"\0"))


def _alias(kit: Kit) -> bytes:
    """A Macintosh alias record: names of volume and file, then the whole path."""
    path, name = str(kit.bait.canary).encode(), kit.bait.canary.name.encode()
    names = struct.pack(">B27s12xB63s", 1, b"x", len(name), name)
    whole = struct.pack(">hH", 2, len(path)) + path + b"\0" * (len(path) % 2)
    record = bytes(10) + names + bytes(36) + whole + struct.pack(">hH", -1, 0)
    return mp4(PICTURE, reference=box(b"alis", bytes(4), record))


def _reference(kit: Kit) -> bytes:
    where = kit.fill("{address}") + b"\0"
    target = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(where)), where)
    return FTYP + box(b"moov", box(b"rmra", box(b"rmda", target)))


def _linked(kit: Kit) -> bytes:
    """A segment that says what comes before and after it, by identity and by name."""
    links = element("3cb923", b"a" * 16), element("3eb923", b"b" * 16)
    names = element("3c83ab", str(kit.bait.canary).encode()), element("3e83bb", kit.fill("{address}"))
    return matroska(FILM, info=b"".join((*links, *names)))

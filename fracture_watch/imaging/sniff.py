"""What a file's first bytes say it is. The name and its extension are never asked."""

from fracture_watch.records import Format

HEAD = 512  # bytes that `sniff` wants to see

_MAGIC = (
    (128, b"DICM", Format.DICOM),  # first: a DICOM preamble may itself look like a TIFF header
    (0, b"\x89PNG\r\n\x1a\n", Format.PNG),
    (0, b"\xff\xd8\xff", Format.JPEG),
    (0, b"II*\x00", Format.TIFF),
    (0, b"MM\x00*", Format.TIFF),
    (0, b"BM", Format.BMP),
    (8, b"WEBP", Format.WEBP),
)
_BITMAP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes, from OS/2 to version 5
# DICOM without preamble begins with an element of group 0002 or 0008: File Meta, or the data set itself.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_VRS = frozenset(b"AE AS AT CS DA DS DT IS LO LT OB OW PN SH SL SQ SS ST TM UI UL UN US UT".split())


def sniff(head: bytes) -> Format:
    """Recognise a format by its first ``HEAD`` bytes (fewer where the file is shorter)."""
    for offset, magic, found in _MAGIC:
        if head[offset : offset + len(magic)] == magic and not _is_something_else(found, head):
            return found
    return Format.DICOM if _bare_data_set(head) else Format.UNKNOWN


def may_become(head: bytes) -> bool:
    """Whether a file of unknown format is too short to tell: a writer may have opened it and not written yet."""
    begun = head.rstrip(b"\0")  # zeros may be room that was set aside; nothing but zeros may become anything
    return any((bytes(offset) + magic).startswith(begun) for offset, magic, _ in _MAGIC if offset != 8)


def _is_something_else(found: Format, head: bytes) -> bool:
    """Sounds are RIFF files, too, and a text may begin with BM: a bitmap then says how long its header is."""
    if found is Format.WEBP:
        return head[:4] != b"RIFF"
    return found is Format.BMP and len(head) >= 18 and int.from_bytes(head[14:18], "little") not in _BITMAP_HEADERS


def _bare_data_set(head: bytes) -> bool:
    if len(head) < 16 or head[:2] not in _FIRST_GROUPS:
        return False
    explicit = head[4:6] in _VRS
    implicit = head[:2] == b"\x08\x00" and head[3] == 0 and int.from_bytes(head[4:8], "little") < 256
    return explicit or implicit

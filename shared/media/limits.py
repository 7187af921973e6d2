"""What a file may cost before it is refused."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds of one file and of the process that decodes it.

    `max_pixels` bounds width times height of a coded picture; frames handed out are scaled down so that the
    longer side is at most `max_side_px`. `memory_bytes` is address space, `output_bytes` the frames and sound
    of one read. `wall_s` ends a decoder that waits instead of working.
    """

    max_duration_s: float = 7200
    max_pixels: int = 8192 * 8192
    max_frames: int = 500_000
    memory_bytes: int = 4096 * MEBIBYTE
    cpu_s: int = 600
    output_bytes: int = 2048 * MEBIBYTE
    max_side_px: int = 1920
    wall_s: float = 590
    threads: int = 2

"""What a file may cost before it is refused."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds of one file and of the process that decodes it.

    `max_pixels` bounds width times height of a coded picture; frames handed out are scaled down so that the longer
    side is at most `max_side_px`. `memory_bytes` is what the decoder may allocate. `wall_s` ends a decoder that waits
    instead of working. Frames wait for their reader in a ring of at most `ring_bytes`, which holds at least one; the
    sound takes at most `sound_bytes`. Clips of more than `parallel_pixels` in all are decoded by `threads` threads.
    """

    max_duration_s: float = 7200
    max_pixels: int = 8192 * 8192
    max_frames: int = 500_000
    memory_bytes: int = 512 * MEBIBYTE
    cpu_s: int = 600
    max_side_px: int = 4096
    wall_s: float = 590
    threads: int = 2
    ring_bytes: int = 64 * MEBIBYTE
    sound_bytes: int = 288 * MEBIBYTE
    parallel_pixels: int = 200_000_000

    @property
    def shared_bytes(self) -> int:
        """Memory shared with the decoder; only what is used of it is ever taken."""
        return self.ring_bytes + self.sound_bytes

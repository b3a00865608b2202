"""Which segments of a sound are heard."""

from mmunify.layers.sounds import SoundPreprocess


def test_segments_are_evenly_spaced_from_start_to_end():
    numbers = SoundPreprocess(num_segments=3, samples=32_000)
    assert numbers.starts(80_000) == [0, 24_000, 48_000]
    assert numbers.starts(80_001)[-1] + 32_000 == 80_001


def test_segments_of_short_sounds_overlap_or_coincide():
    numbers = SoundPreprocess(num_segments=3, samples=32_000)
    assert numbers.starts(40_000) == [0, 4000, 8000]
    assert numbers.starts(32_000) == numbers.starts(5) == [0, 0, 0]


def test_a_single_segment_is_the_first():
    assert SoundPreprocess(num_segments=1, samples=100).starts(1000) == [0]

import torch

from mmunify.layers.temporal import TemporalPositions


def test_all_tokens_of_a_frame_get_its_vector():
    positions = TemporalPositions(6, num_frames=4)
    moved = positions(torch.zeros(2, 9, 6), tokens_per_frame=3)
    assert torch.equal(moved[1].unflatten(0, (3, 3)), positions.table[:3, None].expand(3, 3, 6))


def test_longer_clips_stretch_the_table():
    positions = TemporalPositions(6, num_frames=3)
    moved = positions(torch.zeros(1, 5, 6), tokens_per_frame=1)[0]
    torch.testing.assert_close(moved[::2], positions.table)
    torch.testing.assert_close(moved[1], positions.table[:2].mean(0))


def test_size_of_unified_mllm():
    assert sum(p.numel() for p in TemporalPositions(768).parameters()) == 49_152

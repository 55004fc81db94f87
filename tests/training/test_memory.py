"""What a step takes of memory, and what does not fit."""

import pytest

from minillm.training.memory import check_memory, step_bytes


def test_memory_that_a_step_takes(monkeypatch):
    """Kept grows with the layers, recomputed hardly; and what does not fit is told before it is
    tried."""
    from minillm import GPT2Config, InputError
    from minillm.machine import quota

    small, large = GPT2Config(n_layer=4), GPT2Config(n_layer=8)
    kept, recomputed = (
        [step_bytes(c, 64, 512, again) for c in (small, large)] for again in (False, True)
    )
    assert recomputed[1] < kept[0] < kept[1] and kept[1] - kept[0] > 5 * (
        recomputed[1] - recomputed[0]
    )
    monkeypatch.setattr(quota, "free_bytes", lambda: 8 * 10**9)
    check_memory(GPT2Config(), 1, 64)
    with pytest.raises(
        InputError,
        match=r"64 windows of 1024 would take about .* GB, and 8.0 GB are free: .*--recompute",
    ):
        check_memory(GPT2Config(), 64, 1024)
    monkeypatch.setattr(quota, "free_bytes", lambda: None)
    monkeypatch.setattr(quota, "memory", lambda: None)
    check_memory(GPT2Config(), 64, 1024)


def test_a_gated_feed_forward_keeps_three_rows_of_f():
    """Its gate, what it gates, and the product; GPT-2's keeps two."""
    from minillm import GPT2Config, LlamaConfig

    for config, times in ((GPT2Config, 2), (LlamaConfig, 3)):
        wide, wider = (config().resized(F=F) for F in (1024, 2048))
        grown = step_bytes(wider, 8, 512) - step_bytes(wide, 8, 512)
        blocks = config().sizes.L + 2  # those of the backward, too
        parameters = sum(
            1024 * config().sizes.C for n in config().layout if ".mlp." in n and "bias" not in n
        )
        assert grown == pytest.approx(
            4 * (4 * parameters + blocks * 8 * 512 * times * 1024), rel=1e-3
        )

"""What jobs ask a cluster for: against sums by hand, and never less for more work."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probeline.workflow import resources
from probeline.workflow.resources import Need

BERT_BASE = resources.parameters_of(12, 768, 3072, 30_522)


def test_a_need_is_rounded_up_and_doubles_with_each_attempt():
    need = Need(mb=4210, seconds=100, gpu=True)
    assert [need.mem_mb(attempt) for attempt in (1, 2, 3)] == [4300, 8600, 17200]
    # 10 minutes of start-up, and 3 x 100 s.
    assert [need.runtime(attempt) for attempt in (1, 2, 3)] == [15, 30, 60]


def test_threads_divide_the_time_on_a_cpu_alone():
    assert Need(1, 2400).runtime(threads=8) == 10 + 3 * 300 // 60
    assert Need(1, 2400, gpu=True).runtime(threads=8) == 10 + 3 * 2400 // 60


def test_parameters_are_those_of_a_known_model_or_a_little_more():
    # Llama 2 7B (32 layers, 4096, 11008, vocabulary 32000), by its model card: 6.74 billion.
    assert resources.parameters_of(32, 4096, 11008, 32_000) == pytest.approx(6.74e9, rel=0.01)
    # BERT base has no gate and one matrix of embeddings: 110 million.
    assert 110e6 < BERT_BASE < 1.6 * 110e6


def test_a_table_of_a_gigabyte():
    assert resources.loading(1_000).mb == 2_000 + 12_000
    assert resources.loading(1_000).seconds == 1_000


def test_extraction_by_hand():
    # 10,000 texts of 128 tokens; 25 shards of 768 and 3072, four poolings, float16.
    columns = 4 * (13 * 768 + 12 * 3072)
    need = resources.extraction(100_000_000, 4, columns, 2, 10_000, 128, 512, gpu=False)
    # The model 1.3 times in float32, two blocks of 512 texts, 64 bytes a text, torch.
    block = 512 * columns * 2
    assert need.mb == pytest.approx(3_000 + (520_000_000 + 2 * block + 640_000) / 1e6)
    # 2.56e14 operations at 5e10 a second, and 3.7 GB written at 500 MB a second.
    assert need.seconds == pytest.approx(5120 + 2e-9 * 10_000 * columns * 2)


def test_blocks_of_wide_models_are_bounded():
    columns = 4 * (81 * 8192 + 80 * 28672)
    need = resources.extraction(70_000_000_000, 2, columns, 2, 1_000_000, 128, 512, gpu=True)
    assert need.mb == pytest.approx(3_000 + 182_000 + 2 * (256 << 20) / 1e6 + 64)
    assert need.gpu


def test_a_probe_by_hand():
    # Banking77 on an FFN layer of MiniLM: 13,083 texts x 1536 x 77, twenty steps.
    need = resources.probes(13_083, [1536], 77, 20)
    matrix, weights = 4 * 13_083 * 1536 / 1e6, 4 * 1536 * 77 / 1e6
    assert need.mb == pytest.approx(1_000 + 5 * matrix + 8 * weights)
    assert need.seconds == pytest.approx(5 + 1e-8 * 13_083 * 1536 * 77 * 20)
    # It was measured at 12 to 29 s, of which the estimate is from above.
    assert need.seconds > 29


def test_a_job_of_several_probes_has_the_memory_of_the_widest_and_the_time_of_all():
    several = resources.probes(5_000, [384, 1536, 1536], 3, 10)
    assert several.mb == resources.probes(5_000, [1536], 3, 10).mb
    apart = [resources.probes(5_000, [width], 3, 10).seconds for width in (384, 1536, 1536)]
    assert several.seconds == pytest.approx(sum(apart))


def test_batched_probes_by_hand():
    # The GPU holds the features of all shards, the host those of two and their pinned copies.
    need = resources.batched_probes(5_000, [384] * 13 + [1536] * 12, 3, 10)
    assert need.gpu
    columns = 384 * 13 + 1536 * 12
    held = 10 * 4 * 5_000 * 1536 + 8 * 4 * columns * 3
    assert need.mb == pytest.approx(3_000 + held / 1e6)


def test_a_grid_by_hand():
    need = resources.grid(9_003, 12 * 1536, 77, 160)
    kept = 12 * 1536 // 4
    assert need.mb == pytest.approx(2_000 + 3 * 4 * (9_003 * kept + kept**2) / 1e6)
    assert need.seconds == pytest.approx(10 + 2e-10 * 160 * 9_003 * kept * 87)


def test_training_by_hand():
    # Three epochs forward and backward, and two passes that only look.
    need = resources.training(BERT_BASE, 10_000, 128, 3, gpu=True)
    assert need.seconds == pytest.approx(11 * 2 * BERT_BASE * 10_000 * 128 / 5e12)
    whole = resources.training(BERT_BASE, 10_000, 128, 3, gpu=False)
    adapted = resources.training(BERT_BASE, 10_000, 128, 3, gpu=False, adapters=True)
    # AdamW: weights, gradients and two moments of four bytes.
    assert whole.mb - adapted.mb > 4 * 2.9 * BERT_BASE / 1e6


def test_the_same_work_several_times():
    need = resources.times(Need(100, 7, gpu=True), 3)
    assert (need.mb, need.seconds, need.gpu) == (100, 21, True)


def test_attention_by_hand():
    # Twelve layers of twelve heads, 20 texts of 128 tokens and 77 labels.
    need = resources.attention(12, 768, 128, 77, 20)
    table = 20 * 77 * 128
    assert need.mb == pytest.approx((8 * 144 * 205**2 + 200 * table) / 1e6)
    assert need.seconds == pytest.approx(2e-6 * table)


def test_things_done_together():
    need = resources.together([Need(100, 7), Need(50, 3, gpu=True)])
    assert (need.mb, need.seconds, need.gpu) == (150, 10, True)


# More work, never less memory or time

COUNT = st.integers(1, 10**6)
SMALL = st.integers(1, 500)
BYTES = st.integers(1, 4)
WIDTHS = st.lists(SMALL, min_size=1, max_size=5)
KINDS = {
    "loading": [COUNT],
    "reading": [COUNT, COUNT],
    "tables": [COUNT, SMALL, SMALL],
    "extraction": [COUNT, BYTES, COUNT, BYTES, COUNT, SMALL, SMALL],
    "scoring": [COUNT, BYTES, COUNT, SMALL],
    "attention": [SMALL, SMALL, SMALL, SMALL, COUNT],
    "training": [COUNT, COUNT, SMALL, st.integers(0, 10)],
    "probes": [COUNT, WIDTHS, SMALL, SMALL],
    "batched_probes": [COUNT, WIDTHS, SMALL, SMALL],
    "grid": [COUNT, COUNT, SMALL, SMALL],
}


def asked(need: Need) -> list[int]:
    return [need.mem_mb(), need.mem_mb(2), need.runtime(), need.runtime(2), need.runtime(1, 4)]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_estimate_falls_when_an_argument_rises(kind, data):
    function = getattr(resources, kind)
    arguments = [data.draw(strategy) for strategy in KINDS[kind]]
    place = data.draw(st.integers(0, len(arguments) - 1))
    more = list(arguments)
    if isinstance(more[place], list):
        more[place] = [*(width + 1 for width in more[place]), 10]
    else:
        more[place] = more[place] + data.draw(st.integers(1, 1000))
    known = {}
    if "gpu" in inspect.signature(function).parameters:
        known["gpu"] = data.draw(st.booleans())
    less, larger = function(*arguments, **known), function(*more, **known)
    for one, other in zip(asked(less), asked(larger), strict=True):
        assert one <= other
    assert less.mem_mb(1) < less.mem_mb(2) < less.mem_mb(3)
    assert less.runtime(1) < less.runtime(2) < less.runtime(3)

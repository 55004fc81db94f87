"""What the processor can do, as Numba was told: NUMBA_CPU_NAME=generic with NUMBA_CPU_FEATURES=
gives portable code."""

from __future__ import annotations

from numba.core.registry import cpu_target

# For example "x86_64-unknown-linux-gnu", "znver4", "+avx2,+avx512vnni,-amx"; Numba's disk cache is
# keyed by the same.
TRIPLE, CPU, _features = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(feature[1:] for feature in _features.split(",") if feature.startswith("+"))

# Whether one instruction turns float16 into float32 and back.
HAS_HALVES = bool(FEATURES & {"f16c", "fullfp16"})

# Whether one instruction multiplies pairs of bfloat16.
HAS_PAIRS = "avx512bf16" in FEATURES

"""What the processor can do, as Numba was told: NUMBA_CPU_NAME=generic with NUMBA_CPU_FEATURES= gives portable code."""

from __future__ import annotations

from numba.core.registry import cpu_target

# ("x86_64-...", "znver4", "+avx2,+avx512vnni,-amx,..."); Numba's disk cache is keyed by the same three.
FEATURES = frozenset(f[1:] for f in cpu_target.target_context.codegen().magic_tuple()[2].split(",") if f.startswith("+"))

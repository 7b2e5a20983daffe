"""What Linux tells of processors, whose stored texts stand in for those that are not here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from models import processor
from models.choice import Candidates
from models.device import CPU, allowed_precisions
from models.export_cache import export_key
from models.info import Precision

# of Amazon's Graviton 2 and 3, and of an EPYC of the fourth generation: the first processor's
# lines, with the flags that matter and some others
GRAVITON_2: Final = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid lrcpc dcpop
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
GRAVITON_3: Final = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd aes crc32 atomics fphp asimdhp asimddp sha512 sve svei8mm svebf16 i8mm bf16 rng
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1
"""
EPYC: Final = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9R14
flags\t\t: fpu vme sse2 avx fma avx2 avx512f avx512_bf16 avx512_vnni
"""

Read = Callable[[str], None]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Say what Linux tells of the processor."""

    def forget() -> None:
        processor.features.cache_clear()
        processor.model.cache_clear()

    def reading(text: str) -> None:
        file = tmp_path / "cpuinfo"
        file.write_text(text)
        monkeypatch.setattr(processor, "CPU_INFO", file)
        forget()

    yield reading
    forget()


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        (GRAVITON_2, ("0x41", "0xd0c"), ("asimdhp",)),
        (GRAVITON_3, ("0x41", "0xd40"), ("asimdhp", "sve", "i8mm", "bf16")),
        (
            EPYC,
            ("AMD EPYC 9R14", "25", "17"),
            ("avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
        ),
    ],
)
def test_a_processor_is_told_by_name_or_numbers_and_by_what_it_can_do(
    read: Read, text: str, model: tuple[str, ...], features: tuple[str, ...]
) -> None:
    read(text)
    assert processor.model() == model
    assert processor.features() == features


def test_what_was_measured_on_one_processor_of_arm_holds_for_no_other(read: Read) -> None:
    keys = set()
    for text in (GRAVITON_2, GRAVITON_3, GRAVITON_3.replace("0xd40", "0xd4f")):
        read(text)
        keys.add(export_key("ViT-B-32/openai", Candidates(("fp32",))))
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("text", "precisions"),
    [(GRAVITON_2, ("fp32",)), (GRAVITON_3, ("fp32", "bf16")), (EPYC, ("bf16", "fp32"))],
)
def test_bf16_is_timed_where_the_processor_has_it_and_on_arm_taken_only_then(
    read: Read, text: str, precisions: tuple[Precision, ...]
) -> None:
    read(text)
    assert allowed_precisions("auto", CPU, None) == precisions
    assert allowed_precisions("fp32", CPU, None) == ("fp32",)
    assert allowed_precisions("auto", CPU, "fp32") == ("fp32",)

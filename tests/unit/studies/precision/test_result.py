"""The precision ablation as table, numbers, figure and answer."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_build.metrics.bootstrap import Estimate
from model_build.studies.precision.result import PRECISION, HeadFit, NumberFormatFigures, PrecisionAblation, answer_precision


def variant(name: str, difference: tuple[float, float, float], file_bytes: int, ratio: float, **changes: object) -> NumberFormatFigures:
    figure = Estimate(0.99, 0.98, 1.0)
    plain = NumberFormatFigures(
        name=name,
        compared_with="float32",
        file_bytes=file_bytes,
        zipped_bytes=file_bytes,
        zero_share=0.0,
        most_scales=0,
        auc=figure,
        sensitivity=figure,
        specificity=figure,
        auc_difference=Estimate(*difference),
        balanced_accuracy_difference=Estimate(*difference),
        agreement=0.998,
        latency_ms=10 * ratio,
        latency_ratio=ratio,
    )
    return msgspec.structs.replace(plain, **changes)


def ablation_of(variants: list[NumberFormatFigures]) -> PrecisionAblation:
    nothing = {name: Estimate(0.0, -0.001, 0.001) for name in ("auc", "sensitivity", "specificity", "balanced_accuracy")}
    fit = HeadFit(on_float=nothing, on_int8=nothing, difference=nothing)
    return PrecisionAblation(held_out_images=1000, held_out_patients=600, fine_tuning_epochs=3, variants=variants, head_fit=fit)


FLOAT32 = variant("float32", (0, 0, 0), 4_000_000, 1.0)
DENSE = variant("int8 fine-tuned", (0.001, -0.001, 0.002), 1_000_000, 0.4)


def test_table_numbers_and_figure_are_written(tmp_path: Path) -> None:
    found = ablation_of([FLOAT32, variant("int8 per channel", (-0.0002, -0.001, 0.0005), 1_000_000, 0.4), DENSE])
    PRECISION.write(found, tmp_path)
    assert msgspec.json.decode((tmp_path / "precision.json").read_bytes(), type=PrecisionAblation) == found
    assert (tmp_path / "precision.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "precision.md").read_text()
    assert all(f"| {v.name} |" in text for v in found.variants)
    assert "heads of the int8 model fitted on" in text


def test_the_answer_follows_the_numbers() -> None:
    found = ablation_of(
        [
            FLOAT32,
            variant("float16", (0, -0.0001, 0.0001), 2_000_000, 1.02),
            variant("int8 per tensor", (-0.02, -0.03, -0.01), 900_000, 0.39),
            variant("int8 per channel", (-0.0002, -0.001, 0.0005), 1_000_000, 0.4),
            DENSE,
            variant("int8 pruned 50 %", (-0.0001, -0.001, 0.001), 1_000_000, 0.41, zipped_bytes=600_000, compared_with="int8 fine-tuned"),
            variant("int8 pruned 75 %", (-0.01, -0.02, -0.006), 1_000_000, 0.4, zipped_bytes=400_000, compared_with="int8 fine-tuned"),
        ]
    )
    answer = answer_precision(found)
    assert answer.startswith("Ship int8 per channel: 4.0 times smaller than float32 and 2.5 times faster")
    assert "AUC is lost by int8 per tensor, -0.0200" in answer
    assert "pruning 50 % of the weights saves 40 % of the zipped bytes, makes it no faster and costs no AUC that counts" in answer
    assert "pruning 75 % of the weights saves 60 % of the zipped bytes, makes it no faster and costs AUC, -0.0100" in answer


def test_where_every_format_loses_float32_is_the_answer() -> None:
    found = ablation_of([FLOAT32, variant("int8 per channel", (-0.02, -0.05, 0.01), 1_000_000, 0.4), DENSE])
    answer = answer_precision(found)
    assert answer.startswith("No other format is shown to keep the AUC of float32")
    assert "these patients leave open what is lost by int8 per channel" in answer

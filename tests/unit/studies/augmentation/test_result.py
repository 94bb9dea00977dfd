"""What the augmentation ablation answers."""

from __future__ import annotations

from model_build.metrics.bootstrap import Estimate
from model_build.studies.augmentation.result import AugmentationAblation, AugmentationGroup, answer_augmentation
from model_build.training.augmentation_presets import PresetName


def group(name: PresetName, shift_mean: float, difference: tuple[float, float, float]) -> AugmentationGroup:
    def figure(value: float) -> Estimate:
        return Estimate(value, value - 0.01, value + 0.01)

    return AugmentationGroup(
        name=name,
        auc=figure(0.98),
        balanced_accuracy=figure(0.95),
        shift_mean=figure(shift_mean),
        worst="gamma 1.6",
        shift_worst=figure(shift_mean - 0.1),
        balanced_accuracy_difference=Estimate(0.001, -0.002, 0.004),
        shift_mean_difference=Estimate(*difference),
    )


def ablation_of(*groups: AugmentationGroup) -> AugmentationAblation:
    return AugmentationAblation(held_out_images=900, held_out_patients=500, epochs=8, shift_count=13, groups=list(groups))


def test_the_answer_follows_the_numbers() -> None:
    none = group("none", 0.80, (0, 0, 0))
    geometric, intensity = group("geometric", 0.81, (0.01, -0.01, 0.03)), group("intensity", 0.9, (0.1, 0.08, 0.12))
    answer = answer_augmentation(ablation_of(none, geometric, intensity, group("all", 0.92, (0.12, 0.1, 0.14))))
    assert answer.startswith(
        "All random changes together hold best under shift: balanced accuracy 0.920 (0.910 to 0.930) on average over 13"
    )
    assert "+0.120 (+0.100 to +0.140); under the worst shift 0.820 (gamma 1.6) against 0.700" in answer
    assert "on the images as they are the difference is +0.001 (-0.002 to +0.004), nothing that can be measured" in answer
    assert "geometric alone under shift: +0.010 (-0.010 to +0.030), nothing that can be measured" in answer
    assert "intensity alone under shift: +0.100 (+0.080 to +0.120)" in answer


def test_where_nothing_helps_none_is_the_answer() -> None:
    worse = (-0.05, -0.07, -0.03)
    answer = answer_augmentation(
        ablation_of(group("none", 0.9, (0, 0, 0)), *(group(name, 0.85, worse) for name in ("geometric", "intensity", "all")))
    )
    assert answer.startswith("No random changes hold better under shift than none")
    assert "all together under shift: -0.050 (-0.070 to -0.030)" in answer

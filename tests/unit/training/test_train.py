"""The training loop: seeded, resumable, batch by batch, for exclusive classes and for findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import DiskFullError, ModelError

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from support.small_trunks import build_small_trunk  # noqa: E402

from model_build.config import AugmentationConfig, TrainConfig  # noqa: E402
from model_build.training.train import Phase, Step, Trainer, one_cycle  # noqa: E402
from model_build.training.trunk.trunk import INPUT_DIVISOR  # noqa: E402


def test_one_cycle_rises_and_falls() -> None:
    values = [one_cycle(p / 100) for p in range(101)]
    assert values[0] == pytest.approx(0.04)
    assert max(values) == pytest.approx(1.0)
    assert values.index(max(values)) == 30
    assert values[-1] == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(scope="module")
def examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(24) % 2
    pixels = random.integers(0, 80, (24, 32, 32, 1)) + 150 * labels[:, None, None, None] * (np.arange(32)[None, :, None, None] > 15)
    return pixels.astype(np.uint8), np.eye(2, dtype=np.bool_)[labels]


ALL = np.arange(24)
NOTHING = AugmentationConfig(
    flip=False, rotation_deg=0, scale=0, aspect=0, shift=0, gamma=1, brightness=0, contrast=0, blur_probability=0, noise=0
)


def fresh(config: TrainConfig = TrainConfig(batch_size=8), label_count: int = 2, *, multilabel: bool = False) -> Trainer:  # noqa: B008  frozen
    tf.keras.utils.set_random_seed(3)
    return Trainer(build_small_trunk(32), label_count, config, seed=3, multilabel=multilabel)


def test_a_resumed_training_repeats_an_unbroken_one(tmp_path: Path, examples: tuple[np.ndarray, np.ndarray]) -> None:
    phase = Phase("measure", 3, 1e-3, 1e-2)

    whole = fresh()
    whole.run(phase, *examples, chosen=ALL)
    broken = fresh()
    path = tmp_path / "checkpoint.npz"

    class KillError(Exception):
        pass

    def save_then_die(epochs_done: int) -> None:
        broken.elapsed_s = 12.5
        broken.save(path, phase, epochs_done)
        if epochs_done == 2:
            raise KillError

    with pytest.raises(KillError):
        broken.run(phase, *examples, chosen=ALL, on_epoch=save_then_die)
    resumed = fresh()
    name, epochs_done = resumed.restore(path)
    assert (name, epochs_done, resumed.elapsed_s) == ("measure", 2, 12.5)
    resumed.run(phase, *examples, chosen=ALL, epochs_done=epochs_done)
    assert resumed.epoch_losses == pytest.approx(whole.epoch_losses, rel=1e-3)
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_training_learns_and_a_full_disk_while_saving_leaves_the_old_checkpoint(
    tmp_path: Path, examples: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = fresh()
    phase = Phase("measure", 8, 3e-3, 3e-2)
    trainer.run(phase, *examples, chosen=ALL)
    assert trainer.epoch_losses[-1] < 0.7 * trainer.epoch_losses[0]
    path = tmp_path / "checkpoint.npz"
    trainer.save(path, phase, 8)

    def torn(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(DiskFullError, match=r"checkpoint\.npz: cannot be written: No space left"):
        trainer.save(path, phase, 9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.npz"]
    assert trainer.restore(path) == ("measure", 8)


@pytest.mark.parametrize("kept_share", [0.0, 0.5])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, kept_share: float) -> None:
    path = tmp_path / "checkpoint.npz"
    fresh().save(path, Phase("measure", 1, 1e-3, 1e-2), 1)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept_share * len(content))])
    with pytest.raises(ModelError, match=r"checkpoint\.npz"):
        fresh().restore(path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    fresh(label_count=3).save(path, Phase("measure", 1, 1e-3, 1e-2), 1)
    with pytest.raises(ModelError, match="no checkpoint of this build"):
        fresh().restore(path)


class RecordedStore:
    """A store on disk as the trainer sees one: it gives what it is asked for, in one ascending read, and remembers what that was."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.reads: list[np.ndarray] = []

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        assert (np.diff(indices) > 0).all()
        self.reads.append(indices)
        return self._pixels[indices]


def test_batches_are_read_in_turn_from_the_chosen_images_alone(examples: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, targets = examples
    chosen = np.array([1, 2, 3, 5, 8, 13, 20, 21, 22, 23])
    phase = Phase("measure", 2, 1e-3, 1e-2)
    config = TrainConfig(batch_size=4)
    store, from_memory, from_store = RecordedStore(pixels), fresh(config), fresh(config)
    steps: list[Step] = []
    from_store.run(phase, store, targets, chosen=chosen, on_step=steps.append)
    assert [len(read) for read in store.reads] == [4, 4, 4, 4]
    assert from_store.batches_per_epoch(len(chosen)) == 2 == steps[0].batches_per_epoch
    assert set(np.concatenate(store.reads).tolist()) <= set(chosen.tolist())
    assert len(set(np.concatenate(store.reads[:2]).tolist())) == 8
    # The targets stay with their images: a set that holds the chosen images only, in the same order, trains the same.
    from_memory.run(phase, pixels[chosen], targets[chosen], chosen=np.arange(len(chosen)))
    assert from_store.epoch_losses == pytest.approx(from_memory.epoch_losses, rel=1e-4)


def test_without_shuffling_images_come_in_order_and_none_is_always_left_over(examples: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, targets = examples
    store = RecordedStore(pixels)
    fresh(TrainConfig(batch_size=8, shuffle=False)).run(Phase("measure", 2, 1e-3, 1e-2), store, targets, chosen=np.arange(12))
    # One batch of 8 in each epoch: 0 to 7, then 8 to 11 and again 0 to 3.
    assert [sorted(read.tolist()) for read in store.reads] == [list(range(8)), [0, 1, 2, 3, 8, 9, 10, 11]]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("image_count", [1, 3])
def test_one_equal_image_of_each_label_does_not_break_training(image_count: int, multilabel: bool) -> None:
    trainer = fresh(TrainConfig(batch_size=32), label_count=image_count, multilabel=multilabel)
    pixels, targets = np.full((image_count, 32, 32, 1), 7, np.uint8), np.eye(image_count, dtype=np.bool_)
    trainer.run(Phase("measure", 2, 1e-3, 1e-2), pixels, targets, chosen=np.arange(image_count))
    assert np.isfinite(trainer.epoch_losses).all()
    assert all(np.isfinite(weight).all() for weight in trainer.model.get_weights())


def test_findings_are_learnt_each_by_itself(examples: tuple[np.ndarray, np.ndarray]) -> None:
    """Two findings at once, one, or none: the logits say which, with no sum over the labels between them."""
    random = np.random.default_rng(1)
    findings = np.array([[False, False], [True, False], [False, True], [True, True]] * 6)
    pixels = random.integers(0, 60, (24, 32, 32, 1))
    pixels[findings[:, 0], :16] += 120
    pixels[findings[:, 1], :, ::4] += 70
    config = TrainConfig(batch_size=8, augmentation=NOTHING)
    trainer = fresh(config, multilabel=True)
    trainer.run(Phase("measure", 16, 5e-3, 3e-2), pixels.astype(np.uint8), findings, chosen=ALL)
    # With the batch's own statistics: the running ones need more steps than a test should take.
    logits = np.asarray(trainer.model(pixels.astype(np.float32) / INPUT_DIVISOR, training=True))
    assert ((logits > 0) == findings).mean() > 0.9


@pytest.mark.parametrize(("optimizer", "loss"), [("adam", "focal"), ("sgd", "cross_entropy")])
def test_the_other_optimizers_and_losses_learn(optimizer: str, loss: str, examples: tuple[np.ndarray, np.ndarray]) -> None:
    config = TrainConfig(batch_size=8, optimizer=optimizer, loss=loss, augmentation=NOTHING)  # type: ignore[arg-type]
    trainer = fresh(config)
    trainer.run(Phase("measure", 4, {"adam": 3e-3, "sgd": 3e-2}[optimizer], 1e-2), *examples, chosen=ALL)
    assert trainer.epoch_losses[-1] < 0.5 * trainer.epoch_losses[0]


def test_only_adamw_decays_weights(examples: tuple[np.ndarray, np.ndarray]) -> None:
    """At weight decay 20 and a rate of 1e-2 a step shrinks kernels by a fifth beside what the gradient does; scales it leaves."""
    phase = Phase("measure", 1, 1e-2, 1e-2)
    config = TrainConfig(batch_size=24, weight_decay=20.0)
    decayed, kept = fresh(config), fresh(TrainConfig(batch_size=24, optimizer="adam"))
    kernel = decayed.model.get_layer("conv").kernel.numpy()
    for trainer in (decayed, kept):
        trainer.run(phase, *examples, chosen=ALL)
    share = one_cycle(0.0) * 1e-2 * 20.0
    after = decayed.model.get_layer("conv").kernel.numpy()
    np.testing.assert_allclose(after - kept.model.get_layer("conv").kernel.numpy(), -share * kernel, atol=1e-5)
    np.testing.assert_allclose(decayed.model.get_layer("bn").gamma.numpy(), kept.model.get_layer("bn").gamma.numpy(), atol=1e-6)

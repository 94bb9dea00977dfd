"""The weight reader admits tensors and nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ModelError
from model_build.training.trunk.imagenet_weights import imagenet_weights_path, read_state_dict


def test_reads_the_imagenet_weights() -> None:
    state = read_state_dict(imagenet_weights_path())
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(tensor).all() for tensor in state.values())
    assert (state["_bn0.running_var"] >= 0).all()
    # Trained filters, not noise: the first kernels differ in strength, and each class's row has about zero mean.
    assert 0.05 < state["_conv_stem.weight"].std() < 5.0


class _Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('os').environ.setdefault('WEIGHTS_EXPLOITED', '1')",))


def test_refuses_a_pickle_that_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIGHTS_EXPLOITED", raising=False)
    stream = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {}, _Exploit(), []):
        pickle.dump(part, stream, protocol=2)
    path = tmp_path / "evil.pth"
    path.write_bytes(stream.getvalue())
    with pytest.raises(ModelError, match="only tensors are read"):
        read_state_dict(path)
    import os

    assert "WEIGHTS_EXPLOITED" not in os.environ


@pytest.mark.parametrize("kept_bytes", [0, 10, 200, 42_000, 50_000, 1_000_000])
def test_refuses_a_file_cut_short(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "short.pth"
    path.write_bytes(imagenet_weights_path().read_bytes()[:kept_bytes])
    with pytest.raises(ModelError, match=r"short\.pth"):
        read_state_dict(path)


def test_refuses_another_file(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError):
        read_state_dict(path)

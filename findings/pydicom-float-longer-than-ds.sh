#!/usr/bin/env bash
# Finding:  a float assigned to a decimal string (DS) element is written with more characters than DICOM allows.
# Expected: pydicom rounds it to the 16 bytes of a DS value, or warns, or refuses.
# Seen:     1/3 is written as 0.3333333333333333 (18 characters), without a warning; the file is not valid DICOM.
#           DSfloat(value, auto_format=True) writes 16. pydicom 3.0.2.
# Source:   DICOM PS3.5 section 6.2 (DS: 16 bytes maximum); pydicom.valuerep.DSfloat, parameter auto_format.
# Here:     only the tests write DICOM, and give such values as short text.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pydicom==3.0.2

cd "$work"
venv/bin/python - <<'END'
import warnings
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DSfloat

print("pydicom", pydicom.__version__)


def written(value: object) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.RescaleSlope = value
    dataset.save_as("scan.dcm", enforce_file_format=True)
    content = Path("scan.dcm").read_bytes()
    start = content.index(b"\x28\x00\x53\x10DS") + 6
    length = int.from_bytes(content[start : start + 2], "little")
    return content[start + 2 : start + 2 + length].strip()


with warnings.catch_warnings():
    warnings.simplefilter("error")
    plain, formatted = written(1 / 3), written(DSfloat(1 / 3, auto_format=True))
print("float:", plain.decode(), len(plain), "bytes, no warning")
print("DSfloat(auto_format=True):", formatted.decode(), len(formatted), "bytes")
if len(plain) <= 16 or len(formatted) > 16:
    raise SystemExit("changed: the float no longer passes the limit of 16 bytes")
END

#!/usr/bin/env bash
# Finding:  pydicom's save_as writes, by default, files that pydicom's own dcmread refuses.
# Expected: what save_as writes, dcmread reads.
# Seen:     a data set made in memory is written without the preamble and "DICM" of a DICOM file; dcmread then raises
#           InvalidDicomError. With enforce_file_format=True it is written as a file. pydicom 3.0.2.
# Source:   pydicom 3.0 API reference, Dataset.save_as: enforce_file_format is False by default; DICOM PS3.10 section 7.1.
# Here:     the tests that write DICOM files pass enforce_file_format=True.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pydicom==3.0.2

cd "$work"
venv/bin/python - <<'END'
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

print("pydicom", pydicom.__version__)
dataset = Dataset()
dataset.SOPClassUID = SecondaryCaptureImageStorage
dataset.SOPInstanceUID = generate_uid()
dataset.Modality = "OT"
dataset.save_as("default.dcm", implicit_vr=False, little_endian=True)
try:
    pydicom.dcmread("default.dcm")
except InvalidDicomError as fault:
    print("save_as(...):", type(fault).__name__, "-", str(fault)[:60])
else:
    raise SystemExit("changed: dcmread reads what save_as writes by default")
dataset.file_meta = FileMetaDataset()
dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
dataset.save_as("enforced.dcm", enforce_file_format=True)
print("save_as(..., enforce_file_format=True): reads", pydicom.dcmread("enforced.dcm").Modality)
END

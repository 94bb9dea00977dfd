#!/usr/bin/env bash
# Finding:  msgspec writes NaN as null, and then refuses its own output for a field of type float.
# Expected: json.decode(json.encode(x), type=T) gives x back, or encode refuses a value that JSON does not have.
# Seen:     a struct with a float field that is NaN or infinite is encoded as null without a warning; decoding it raises
#           ValidationError "Expected float, got null". The standard library writes NaN and reads it. msgspec 0.22.0.
# Source:   RFC 8259 section 6 (no NaN in JSON); msgspec documentation, supported types, float.
# Here:     model_build/report/result.py reads a null in report.json as a figure that is not known.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check msgspec==0.22.0

cd "$work"
venv/bin/python - <<'END'
import importlib.metadata
import json
import math

import msgspec

print("msgspec", importlib.metadata.version("msgspec"))


class Figure(msgspec.Struct):
    auc: float


for value in (math.nan, math.inf):
    line = msgspec.json.encode(Figure(value))
    try:
        msgspec.json.decode(line, type=Figure)
    except msgspec.ValidationError as fault:
        print(value, "->", line.decode(), "->", fault)
    else:
        raise SystemExit(f"changed: {line.decode()} is read back as a float")
    if line != b'{"auc":null}':
        raise SystemExit(f"changed: {value} is written as {line.decode()}")
print("json:", json.dumps(math.nan), "->", json.loads(json.dumps(math.nan)))
END

"""Drop to durable record: one 1-megapixel JPEG at a time into the inbox of an idle agent, less the settle time.

.venv/bin/python tests/benchmarks/bench_drop_to_record.py
"""

from __future__ import annotations

from reporting import Measured, arguments, at_most, print_report

from edge_agent.bench.arrivals import measure_arrivals


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    rows = {row.stage: row for row in measure_arrivals(options.model, options.seconds, [])}
    drop = rows["drop_to_record"]
    if drop.latency_ms is None:
        raise SystemExit(f"nothing measured: {drop.error}")
    commit = rows["commit"].latency_ms
    assert commit is not None
    images = f"{drop.latency_ms.iterations} images, synthetic, 1024x1024"
    return print_report(
        "Drop to durable record, beyond the settle time",
        [
            at_most("median", drop.latency_ms.median, 25, "ms", images),
            Measured("p90", drop.latency_ms.p90, "ms"),
            Measured("p99", drop.latency_ms.p99, "ms"),
            Measured("durable commit alone, median", commit.median, "ms", note="depends on the disk"),
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())

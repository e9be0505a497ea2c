"""pyxdf's clock synchronisation on the simulated clocks of aligner/tests/simulated, beside the known truth.

    cargo test -p orrery-aligner --test clocks -- --ignored --nocapture
    clocks.py <the folder which that printed>

Each wave of probes enters as the clock offset that liblsl would record: that of the probe with the least round trip. Samples
are regular, and both ways of pyxdf are scored: corrected only, and also freed of jitter (its default). Errors in microseconds.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyxdf
from pyxdf.pyxdf import _clock_sync, _jitter_removal

SAMPLE_SECONDS = 2.5


def runs(path):
    rows = np.fromfile(path, dtype="<f8").reshape(-1, 2)
    at = 0
    while at < len(rows):
        waves, samples = rows[at].astype(int)
        at += 1
        yield rows[at : at + waves], rows[at + waves : at + waves + samples]
        at += waves + samples


def errors(waves, samples):
    """|error| in seconds of each sample: synchronised, then also freed of jitter."""
    stream = SimpleNamespace(
        time_stamps=samples[:, 0].copy(),
        clock_times=waves[:, 0].tolist(),
        clock_values=waves[:, 1].tolist(),
        srate=1 / SAMPLE_SECONDS,
        tdiff=SAMPLE_SECONDS,
        clock_segments=[],
        segments=[],
    )
    truth = samples.sum(axis=1)
    _clock_sync({1: stream})
    synchronised = np.abs(stream.time_stamps - truth)
    _jitter_removal({1: stream})
    return synchronised, np.abs(stream.time_stamps - truth)


def main(folder):
    print(f"pyxdf {pyxdf.__version__}")
    for path in sorted(Path(folder).glob("*.runs")):
        both = [np.concatenate(one) for one in zip(*(errors(*run) for run in runs(path)))]
        cells = " | ".join(f"{np.median(one) * 1e6:.1f}, {np.quantile(one, 0.95) * 1e6:.1f}" for one in both)
        print(f"| {path.stem[3:]} | {cells} |")


if __name__ == "__main__":
    main(sys.argv[1])

"""A GPU's power draw and clock while something is timed, as nvidia-smi reports them."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
import time
from types import TracebackType
from typing import Final

import torch

_QUERY: Final = "power.draw.instant,clocks.sm"
_PERIOD_MS: Final = 50


class PowerMonitor:
    """Reads power and clock of a GPU in the background; does nothing elsewhere.

    Example:
        >>> with PowerMonitor(torch.device("cpu")) as monitor:
        ...     found = monitor.between([])
        >>> found
        (None, None)
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples: list[tuple[float, float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> PowerMonitor:
        if self._device.type == "cuda" and shutil.which("nvidia-smi") is not None:
            uuid = torch.cuda.get_device_properties(self._device).uuid
            self._process = subprocess.Popen(
                [
                    *("nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={_QUERY}"),
                    *("--format=csv,noheader,nounits", f"--loop-ms={_PERIOD_MS}"),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._thread.start()
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    watts, clock = (float(x) for x in line.split(","))
                except ValueError:
                    # A GPU that does not report one of them says so in words.
                    continue
                self._samples.append((time.perf_counter(), watts, clock))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            # Its end ends the thread, which closes the pipe.
            self._process.terminate()
            self._process.wait()
            self._thread.join()

    def between(self, windows: list[tuple[float, float]]) -> tuple[float | None, float | None]:
        """Median watts and MHz over windows of `time.perf_counter`; None where nothing was read."""
        found = [
            sample
            for sample in list(self._samples)
            if any(start <= sample[0] <= end for start, end in windows)
        ]
        if not found:
            return None, None
        return statistics.median(s[1] for s in found), statistics.median(s[2] for s in found)

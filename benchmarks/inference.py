"""``python -m benchmarks.inference``: what one view costs the network, by runtime, batch size, threads and processes.

Every runtime runs in processes of its own: one with a thread for every core, then one for every core with a thread
each, all at the same time. ``torch, served`` and ``OpenVINO, served`` are what this project runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.bench import ROOT, machine
from fracture_watch.allocator import keep_freed_memory
from fracture_watch.model import load_classifier
from fracture_watch.model.card import Card
from fracture_watch.model.openvino_runtime import OpenVinoNetwork
from fracture_watch.model.weights import load_trainable

Run: TypeAlias = Callable[[Tensor], Any]
BATCHES = 1, 7, 16, 32
_PATIENCE = 240  # seconds for one runtime to begin: torch.compile may take longer


def main() -> None:
    """Measure every runtime in processes of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    parser.add_argument("--seconds", type=float, default=3, help="for each batch size")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--child", nargs=2, metavar=("RUNTIME", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, threads = options.child
        print(json.dumps(measured(name, int(threads), options.weights, options.seconds)))
        return
    console, cores = Console(width=150), machine()["cores"]
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()), highlight=False)
    table = Table(
        "ms a view", *(f"{batch}, {how}" for how in ("one process", f"{cores} processes") for batch in BATCHES)
    )
    for name in options.runtimes:
        alone = paces(name, 1, cores, options)
        together = paces(name, cores, 1, options)
        table.add_row(name, *(f"{1000 / pace:.1f}" if pace else "" for pace in alone + together))
    console.print(table, f"Wall time; the first {len(BATCHES)} columns use {cores} threads, the others one a process.")


def paces(name: str, processes: int, threads: int, options: argparse.Namespace) -> list[float]:
    """Views a second of all processes together, for each batch size; zeros where a runtime does not work here."""
    command = [sys.executable, "-m", "benchmarks.inference", "--child", name, str(threads)]
    command += ["--weights", str(options.weights), "--seconds", str(options.seconds)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}  # as in serving
    children = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    patience = _PATIENCE + options.seconds * len(BATCHES)
    try:
        answers = [child.communicate(timeout=patience) for child in children]
    except subprocess.TimeoutExpired:
        for child in children:
            child.kill()
            child.wait()
        print(f"{name}: nothing to show after {patience:g} s", file=sys.stderr)
        return [0.0] * len(BATCHES)
    if any(child.returncode for child in children):
        print(f"{name}: {answers[0][1].strip().splitlines()[-1]}", file=sys.stderr)
        return [0.0] * len(BATCHES)
    found: list[list[float]] = [json.loads(out) for out, _ in answers]
    return [sum(part) for part in zip(*found, strict=True)]


def measured(name: str, threads: int, weights: Path, seconds: float) -> list[float]:
    """Views a second, for each batch size: the median of all batches in so many seconds."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    run = RUNTIMES[name](weights, threads)
    found = []
    for batch in BATCHES:
        images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for _ in range(2):
                run(images)
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end:
                began = time.perf_counter()
                run(images)
                times.append(time.perf_counter() - began)
        found.append(batch / statistics.median(times))
    return found


def _trained(weights: Path) -> nn.Module:
    return load_trainable(weights, Card.load(weights)).body.eval()


def _eager(weights: Path, threads: int) -> Run:
    return _trained(weights)


def _served(weights: Path, threads: int) -> Run:
    network = load_classifier(weights, device="cpu").network
    return lambda images: network(images.to(memory_format=torch.channels_last))


def _frozen(weights: Path, threads: int) -> Run:
    example = torch.zeros(2, 3, 224, 224)
    traced = torch.jit.trace(_trained(weights), example, check_trace=False)
    run: Run = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return run


def _compiled(weights: Path, threads: int) -> Run:
    compiled: Run = torch.compile(_trained(weights), dynamic=True)
    return compiled


def _onnx(weights: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        batch = torch.export.Dim("batch", min=1, max=64)
        example = (torch.zeros(2, 3, 224, 224),)
        torch.onnx.export(_trained(weights), example, path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images.numpy()})


def _openvino(weights: Path, threads: int) -> Run:
    return OpenVinoNetwork(load_trainable(weights, Card.load(weights)), 224)


RUNTIMES: dict[str, Callable[[Path, int], Run]] = {
    "torch, eager": _eager,
    "torch, served": _served,
    "torch, frozen": _frozen,
    "torch.compile": _compiled,
    "ONNX Runtime": _onnx,
    "OpenVINO, served": _openvino,
}


if __name__ == "__main__":
    main()

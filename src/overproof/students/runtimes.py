"""What runs an encoder's graph: ONNX Runtime or OpenVINO, each with the form of the graph that it reads."""

from __future__ import annotations

import importlib.util
import queue
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError, MissingExtra
from overproof.students.files import AGAIN

MODEL = "model.onnx"
INPUTS = ["input_ids", "attention_mask"]
# The key of an ONNX tensor that lies in another file: such a graph could read any file. Our own graphs never hold it.
EXTERNAL_DATA = b"location"
BATCH = 32  # more rows cost padding and gain nothing on a processor (measured with 13 tokens in the median)
# OpenVINO compiles for each shape: sixteen lengths up to 128 tokens instead of 128.
LENGTHS = 8
# Activations are quantised by groups of so many columns of one token: with 32 and 64 OpenVINO takes its slow road.
GROUP = 128
FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")

Form = Literal["channels", "blocks", "weights"]
STREAMS: ContextVar[int] = ContextVar("STREAMS", default=1)
"""Passes, one thread each, that a graph opened now has to run at the same time; ONNX Runtime takes any number as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """One way to run a graph."""

    name: str
    """As it stands in the project file and in `student.json`."""
    form: Form | None = None
    """How the fitted graph is rewritten, see `quantise.rewritten`; None leaves it as it is."""
    precision: Literal["f32", "bf16"] = "f32"
    """What OpenVINO reckons in."""
    together: int = BATCH
    """Most rows in one pass."""
    padding: float = 0.25
    """Most share of padding that serving admits in a pass; 0 where rows go together only with others of their padded length."""

    @property
    def openvino(self) -> bool:
        """True iff OpenVINO runs it; else ONNX Runtime does."""
        return self.name.startswith("openvino-")

    @property
    def multiple(self) -> int:
        """Lengths are padded up to a multiple of this."""
        return LENGTHS if self.openvino else 1

    @property
    def extras(self) -> tuple[str, ...]:
        """Extras of this package that a server needs beside the student's own."""
        return ("openvino",) if self.openvino else ()


FP32 = Runtime(name="onnx-fp32")
# Simplest first: a later one has to be clearly faster to be taken.
RUNTIMES = {
    one.name: one
    for one in (
        FP32,
        # Rounded activations turn a difference in the seventh digit, which comes with every padding, into one in the
        # second. So each message goes alone, as it was certified; sixteen tokens keep one core busy.
        # OpenVINO gives a row beside rows of its own padded length the bits that it has alone: those go together.
        Runtime(name="onnx-blocks8", form="blocks", together=1),
        Runtime(name="onnx-int8", form="channels", together=1),
        Runtime(name="openvino-fp32", padding=0.0),
        Runtime(name="openvino-bf16", precision="bf16", padding=0.0),
        Runtime(name="openvino-int8", form="weights", padding=0.0),
    )
}
AUTO = "auto"


def runtime_of(name: Any) -> Runtime:
    """
    The runtime behind a name.

    Args:
        name: as `student.json` holds it.

    Returns: the runtime.
    Raises: DataError for any other name.
    """
    if isinstance(name, str) and name in RUNTIMES:
        return RUNTIMES[name]
    raise DataError(
        f"no runtime named {str(name)[:40]!r}; there are {', '.join(RUNTIMES)}",
        next_action='name one of these, or write runtime = "auto"',
    )


def why_not(runtime: Runtime) -> str:
    """
    Why a runtime can't run on this machine.

    Args:
        runtime: any.

    Returns: a clause; empty where it can.
    """
    library = "openvino" if runtime.openvino else "onnxruntime"
    if importlib.util.find_spec(library) is None:
        return f"{library} is not installed"
    if runtime.precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this processor has no bf16 arithmetic (avx512_bf16 or AMX)"
    return ""


def arithmetic() -> str:
    """
    What this processor reckons fast in, of what matters here.

    Returns: words such as "avx512_vnni avx512_bf16"; "unknown" where the system doesn't say.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    have = set(text.split())
    return " ".join(word for word in FEATURES if word in have) or "unknown"


class Session(Protocol):
    """A loaded graph."""

    outputs: dict[str, int | None]
    """Name to columns, in the graph's order; None where the graph doesn't say."""

    def run(self, names: Sequence[str], ids: NDArray[np.int64], mask: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """
        One pass.

        Args:
            names: outputs.
            ids: shape (n, length).
            mask: shape (n, length).

        Returns: one array each.
        """


def open_session(model: bytes, runtime: Runtime, *, threads: int) -> Session:
    """
    Load a graph, and nothing besides: no other file, no other form of it.

    Args:
        model: an ONNX model in the form that the runtime reads.
        runtime: which.
        threads: most threads of one pass.

    Returns: the session.
    Raises: DataError for a graph that is none or has other inputs, and where this processor can't run it; MissingExtra.
    """
    if EXTERNAL_DATA in model:
        raise DataError(f"{MODEL} keeps tensors in another file, which is never read", next_action=AGAIN)
    try:
        session = (_OpenVino if runtime.openvino else _Onnx)(model, runtime, threads)
    except ImportError as error:
        raise MissingExtra(runtime.name, extra="openvino" if runtime.openvino else "encoder") from error
    except DataError:
        raise
    except Exception as error:  # both libraries raise bare exceptions of their own
        raise DataError(f"{MODEL} can't be loaded by {runtime.name}: {error}", next_action=AGAIN) from error
    if sorted(session.inputs) != sorted(INPUTS):
        raise DataError(f"{MODEL} has other inputs than token ids and mask", next_action=AGAIN)
    return session


class _Onnx:
    def __init__(self, model: bytes, runtime: Runtime, threads: int) -> None:
        import onnxruntime

        del runtime  # the graph says all
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shapes = {output.name: output.shape[-1] for output in session.get_outputs()}
        self.outputs = {name: width if isinstance(width, int) else None for name, width in shapes.items()}
        self.inputs = [one.name for one in session.get_inputs()]
        self._run = session.run

    def run(self, names: Sequence[str], ids: NDArray[np.int64], mask: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._run(list(names), {"input_ids": ids, "attention_mask": mask})
        return found


class _OpenVino:
    def __init__(self, model: bytes, runtime: Runtime, threads: int) -> None:
        core = _core()
        if reason := why_not(runtime):  # OpenVINO would silently reckon in fp32, with other scores than were certified
            raise DataError(
                f"{runtime.name} can't run here: {reason}",
                next_action='serve on a processor that has it, or release again with runtime = "auto" on one like this',
            )
        streams = STREAMS.get()
        found = core.compile_model(
            core.read_model(model=model),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads * streams,
                "NUM_STREAMS": streams,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": runtime.precision,
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if runtime.form else 0,
            },
        )
        self.inputs = [one.get_any_name() for one in found.inputs]
        sizes = {one.get_any_name(): one.get_partial_shape()[1] for one in found.outputs}
        self.outputs = {name: size.get_length() if size.is_static else None for name, size in sizes.items()}
        self._place = {name: at for at, name in enumerate(self.outputs)}
        self._swapped = self.inputs != INPUTS
        # A request holds its own inputs and outputs: one for each pass that runs at the same time.
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._idle.put(found.create_infer_request())

    def run(self, names: Sequence[str], ids: NDArray[np.int64], mask: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        request = self._idle.get()
        try:
            request.infer([mask, ids] if self._swapped else [ids, mask], share_inputs=True)
            return [request.get_output_tensor(self._place[name]).data.copy() for name in names]
        finally:
            self._idle.put(request)


def _core() -> Any:
    import openvino

    return openvino.Core()

"""Training one encoder in several processes: `torchrun` starts this module, which shares each batch and adds gradients up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import Example, Request, TrainSet
from overproof.errors import DataError, MissingExtra, OverproofError, StoreError
from overproof.progress import reporter
from overproof.students.bert_onnx import BertConfig, Head, Pooling, Weights
from overproof.students.checkpoints import Checkpoint
from overproof.students.finetune import Tokens, Tuned, Tuning, device_of, finetune

WORKER = ("-m", "overproof.students.distributed")
MACHINES = "PET_RDZV_ENDPOINT"  # torchrun's own variable: then it takes all that it has to know from PET_*
SHARED = "together"  # the folder's name where other machines have to know it
JOB, TUNED, LOG = "job", "tuned", "log.txt"
PATIENCE = timedelta(hours=2)  # a process that died is seen at once; this is for a network that went silent
STOP_S = 30.0
AGAIN = "look at the memory that this many copies of the encoder take, or lower `processes`; then run again: the last whole state is taken up"


def together(
    config: BertConfig,
    tensors: Weights,
    tokens: Tokens,
    train: TrainSet,
    tuning: Tuning,
    *,
    seed: int,
    pooling: Pooling,
    checkpoint: Checkpoint | None = None,
) -> Tuned:
    """
    Train an encoder and its head in `tuning.processes` processes; see `finetune`.

    Args:
        config: the encoder's shape.
        tensors: its weights.
        tokens: the rows' tokens, in the order of the rows.
        train: the rows; no text of theirs leaves this process.
        tuning: how.
        seed: as of `finetune`; the same number of processes on the same machine gives the same bytes.
        pooling: how token states become one row.
        checkpoint: where a kill leaves its state.

    Returns: what the first process trained.
    Raises: DataError; StoreError where a process ends before its time; MissingExtra without torch.
    """
    try:
        from torch import distributed
    except ImportError as error:
        raise MissingExtra("encoder.v1 with tune", extra="finetune") from error
    if not distributed.is_available():
        raise DataError("this build of torch trains in one process only", next_action="install torch for Linux or macOS, or leave `processes` out")
    at = {label: i for i, label in enumerate(train.labels)}
    arrays = {f"base.{name}": np.asarray(value) for name, value in tensors.items()} | {
        "ids": np.concatenate(tokens.ids),
        "lengths": np.array([len(row) for row in tokens.ids], dtype=np.int64),
        "targets": np.array([at[e.target] for e in train.examples], dtype=np.int64),
        "rows": np.array([[e.weight, e.agreement, e.samples] for e in train.examples], dtype=np.float64),
    }
    facts = {
        "config": asdict(config), "tuning": asdict(tuning), "labels": list(train.labels), "seed": seed, "pooling": pooling,
        "checkpoint": [str(checkpoint.path.parent.absolute()), checkpoint.path.stem] if checkpoint else None,
    }
    with _folder(checkpoint) as folder:
        Checkpoint(folder, JOB).save(arrays, facts)
        _launch(folder, tuning.processes)
        done = Checkpoint(folder, TUNED).load()
        if done is None:
            raise StoreError("the processes ended well and left no trained encoder", next_action="see that all machines have the same folder, then run again")
        return _tuned(*done)


@contextmanager
def _folder(checkpoint: Checkpoint | None) -> Iterator[Path]:
    if MACHINES in os.environ and checkpoint is None:
        raise DataError(f"{MACHINES} is set and there is no folder that the machines share", next_action="set the student's `checkpoints` to one")
    if checkpoint is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder = checkpoint.path.with_name(SHARED) if MACHINES in os.environ else checkpoint.path.with_suffix(".job")
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir(parents=True, mode=0o700)  # the rows are in it, as tokens
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _launch(folder: Path, processes: int) -> None:
    here = [] if MACHINES in os.environ else ["--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, "-m", "torch.distributed.run", *here, *WORKER, str(folder.absolute()), "relay"]
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
    bar: Callable[[int], None] | None = None
    with (folder / LOG).open("wb") as log, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                try:
                    what = json.loads(line)
                except ValueError:  # a library's own words
                    continue
                if isinstance(what, list):
                    bar = reporter.get().start(*what)
                elif bar is not None:
                    bar(what)
        except BaseException:
            _end(child)
            raise
        finally:
            if bar is not None:
                bar(-1)
    if child.returncode:
        raise _cause(folder, processes)


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()  # torchrun then ends its processes
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _cause(folder: Path, processes: int) -> OverproofError:
    for path in sorted(folder.glob("error.*.json")):
        what, next_action = json.loads(path.read_text(encoding="utf-8"))
        return DataError(what, next_action=next_action)
    log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    ends = re.findall(r"rank\s*: (\d+) .*\n\s*exitcode\s*: -(\d+)", log)
    killed = [(rank, f"was ended by signal {number}") for rank, number in ends if int(number) != signal.SIGTERM]  # that one is torchrun's own
    # The others fail after the first one, because it is gone.
    raised = re.findall(r"^(?:\[rank(\d+)\]: )?(\w[\w.]*(?:Error|Exception)\b.*)", log, flags=re.MULTILINE)
    rank, end = (killed or raised or [("", (log.strip().splitlines() or ["no word"])[-1])])[0]
    short = "if that was the kernel for want of memory, halve the batch in the student's `tune`; " if end.endswith(f" {int(signal.SIGKILL)}") else ""
    return StoreError(f"process {rank or '?'} of the {processes} that train the encoder {end if killed else f'ended: {end}'}", next_action=short + AGAIN)


def _tuned(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Tuned:
    tensors = {name.removeprefix("tensor."): value for name, value in arrays.items() if name.startswith("tensor.")}
    head = Head(weight=arrays["head.weight"], bias=arrays["head.bias"])
    return Tuned(tensors=tensors, head=head, facts=facts["facts"], check=arrays["check"], resumed_at=facts["resumed_at"])


class _Relay:
    """Progress as lines for the process that started this; where nobody reads them any more, this process ends as well."""

    def start(self, what: str, total: int | None) -> Callable[[int], None]:
        print(json.dumps([what, total]), flush=True)
        return lambda n: print(json.dumps(n), flush=True)


def main(folder: Path, *, relay: bool) -> None:
    """
    One process of a training, as torchrun starts it: its place is in the environment.

    Args:
        folder: what `together` left; gets the trained encoder from the first process.
        relay: whether to tell progress on standard output.

    Raises: SystemExit, with the reason in the folder, where the training can't be done.
    """
    import torch
    from torch import distributed

    local = int(os.environ["LOCAL_RANK"])
    if relay and local == 0:
        reporter.set(_Relay())
    if device_of() == "cuda":
        torch.cuda.set_device(local)
        distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
    else:
        distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        _work(folder, first=distributed.get_rank() == 0)
    except OverproofError as error:
        said = json.dumps([error.what, error.next_action])
        (folder / f"error.{distributed.get_rank()}.json").write_text(said, encoding="utf-8")
        raise SystemExit(1) from error
    distributed.barrier()  # the file is there before any machine's torchrun says that it is done
    distributed.destroy_process_group()


def _work(folder: Path, *, first: bool) -> None:
    job = Checkpoint(folder, JOB).load()
    if job is None:
        raise StoreError("the training's folder can't be read", next_action="see that all machines have the same folder")
    arrays, facts = job
    rows = zip(arrays["targets"], arrays["rows"], strict=True)
    nothing, labels = Request(id="", fields={}), tuple(facts["labels"])
    examples = tuple(
        Example(request=nothing, target=labels[at], weight=weight, agreement=agreement, samples=int(samples))
        for at, (weight, agreement, samples) in rows
    )
    tuned = finetune(
        BertConfig(**facts["config"]),
        {name.removeprefix("base."): value for name, value in arrays.items() if name.startswith("base.")},
        Tokens(ids=tuple(np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1]))),
        TrainSet(examples=examples, labels=labels),
        Tuning(**facts["tuning"]),
        seed=facts["seed"],
        pooling=facts["pooling"],
        checkpoint=Checkpoint(Path(facts["checkpoint"][0]), facts["checkpoint"][1]) if facts["checkpoint"] else None,
    )
    if first:
        found = {f"tensor.{name}": value for name, value in tuned.tensors.items()}
        found |= {"head.weight": tuned.head.weight, "head.bias": tuned.head.bias, "check": tuned.check}
        Checkpoint(folder, TUNED).save(found, {"facts": tuned.facts, "resumed_at": tuned.resumed_at})


if __name__ == "__main__":
    main(Path(sys.argv[1]), relay="relay" in sys.argv[2:])

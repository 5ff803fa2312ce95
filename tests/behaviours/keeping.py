"""Results: run, kept under a name, and compared."""

import contextlib
import fnmatch
import hashlib
import io
import json
import math
import os
import re
import shutil
import struct
import traceback
from pathlib import Path

import torch
from torch import Tensor

from behaviours.names import at

# how far a result may be from the one before, relative to its largest number
EXACT, ROUNDING, TEXT = 0.0, 1e-5, math.inf

CHUNK = b"wiCl"  # in which a PNG says what made it


class Run:
    """One section at work.

    Args:
        section: Its name.
        folder: The record: photographs, weights and files that later code reads.
        work: Where commands write.
        reference: The folder of the authors' numbers; may be missing.
        records: Whether ``folder`` is being filled.
    """

    def __init__(self, section, folder, work, reference, *, records):
        self.section, self.folder, self.reference, self.records = (
            section,
            folder,
            reference,
            records,
        )
        self.work = work / section
        self.work.mkdir()
        self.results, self.failures = {}, {}
        self._case = ""

    @contextlib.contextmanager
    def case(self, name):
        """Results that belong together; with a seed, and one that fails does not stop others."""
        self._case = f"{self.section}/{name}"
        torch.manual_seed(0)
        try:
            yield
        except Exception as error:  # whatever the code at hand raises is what is to be told
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            self.failures[self._case] = f"{type(error).__name__} in {place}: {error}"

    def keep(self, name, value, within=EXACT):
        """Keeps a result: tensors, numbers, texts, bytes, or lists and dicts of them."""
        full = f"{self._case}/{name}"
        if full in self.results:
            raise ValueError(f"{full} is kept twice")
        self.results[full] = (within, _plain(value))

    def made_once(self, name, make):
        """The folder ``name`` of the record, which ``make(folder)`` fills when it is recorded."""
        target = self.folder / name
        if self.records and not target.exists():
            target.mkdir(parents=True)
            make(target)
        return target

    def place(self, name):
        """An empty folder to work in."""
        target = self.work / name
        target.mkdir(parents=True)
        return target


class Shell:
    """Commands in a folder, whose results are kept.

    Args:
        run: Where they are kept.
        folder: Where they run.
    """

    def __init__(self, run, folder):
        self.run, self.folder = run, folder

    def link(self, **targets):
        """Makes folders and files of the record known under short names."""
        for name, target in targets.items():
            (self.folder / name).symlink_to(target)

    def __call__(self, name, words, *, told=TEXT):
        """Runs ``wic WORDS`` as the case ``name``; returns the new files.

        Exit code, new files and their contents are kept; what is printed too, ``told`` says how
        exactly: as JSON, a line each, where ``--json`` is among the words.
        """
        with self.run.case(name):
            before = self.files()
            code, out, err = call(words, self.folder)
            new = {
                path: stamp for path, stamp in self.files().items() if before.get(path) != stamp
            }
            self.run.keep("exit code", code)
            self.run.keep("files", sorted(new))
            is_json = "--json" in words.split()
            if is_json and not code:
                self.run.keep(
                    "printed JSON", [json.loads(line) for line in out.splitlines()], ROUNDING
                )
            else:
                # a selftest says how long it took
                self.run.keep("printed", re.sub(r"\b\d+\.\d s$", "some s", out), told)
            self.run.keep("errors", err, TEXT)
            for path in sorted(new):
                if path.endswith(".png"):
                    self.run.keep(path, png(self.folder / path))
            return sorted(new)
        return []

    def files(self):
        """Files below the folder, links aside, with what changes when one is written."""
        found = {}
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = Path(parent) / name
                if not path.is_symlink():
                    status = path.stat()
                    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                    found[str(path.relative_to(self.folder))] = stamp
        return found


def call(words, folder):
    """Exit code, output and errors of a command line, run in this process."""
    out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
    torch.manual_seed(0)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = at("main")(words.split())
    except SystemExit as error:
        code = error.code
    finally:
        os.chdir(here)
        torch.set_num_threads(1)
        torch.set_grad_enabled(True)
    return code, out.getvalue(), err.getvalue()


def png(path):
    """A PNG file: pixels, what the parts of its own chunk say, and all other bytes."""
    import numpy as np
    from PIL import Image

    from wic_layers.codec.parts import split

    content = path.read_bytes()
    mark, others, at_byte = None, [content[:8]], 8
    while at_byte < len(content):
        (length,) = struct.unpack(">I", content[at_byte : at_byte + 4])
        chunk = content[at_byte : at_byte + 12 + length]
        at_byte += len(chunk)
        data = chunk[8:-4]
        if chunk[4:8] == CHUNK:
            mark = {name: part.hex() for name, part in split(data).items()}
            mark["mark"] = json.loads(bytes.fromhex(mark["mark"]))
        else:
            others.append(chunk)
    with Image.open(io.BytesIO(content)) as image:
        mode, pixels = image.mode, torch.from_numpy(np.array(image))
    digest_of_others = hashlib.sha256(b"".join(others)).hexdigest()
    return {"mode": mode, "pixels": pixels, "mark": mark, "bytes": digest_of_others}


def without_versions(values):
    """A dictionary without what tells the version of the library."""
    return {key: value for key, value in values.items() if key not in ("version", "format")}


def state_of(model):
    """Keys and shapes of a state dict, in their order, and what is trained."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [
        [key, list(value.shape), str(value.dtype), key in trained]
        for key, value in model.state_dict().items()
    ]


def copied(source, target):
    """A copy of a folder of the record that may be written to."""
    shutil.copytree(source, target)
    return target


def digest(value):
    """16 hex digits that change with a value."""
    found = hashlib.sha256()
    for part in _parts(value):
        found.update(part)
    return found.hexdigest()[:16]


def _parts(value):
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _parts(item)
    elif isinstance(value, list):
        yield f"[{len(value)}]".encode()
        for item in value:
            yield from _parts(item)
    else:
        yield repr(value).encode()


def _plain(value):
    """A copy of tensors, lists, dicts and plain values."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().clone()
        return value.flatten() if value.ndim == 0 else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return value
    return str(value)


def differences(before, after):
    """Where two results differ, and by how much of their size; inf where that has no measure."""
    if type(before) is not type(after):
        yield "", f"was {_short(before)}, is {_short(after)}", math.inf
    elif isinstance(before, Tensor):
        yield from _of_tensors(before, after)
    elif isinstance(before, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            if key not in after:
                yield f".{key}", "is gone", math.inf
            elif key not in before:
                yield f".{key}", f"is new: {_short(after[key])}", math.inf
            else:
                for where, what, size in differences(before[key], after[key]):
                    yield f".{key}{where}", what, size
    elif isinstance(before, list):
        if len(before) != len(after):
            yield "", f"had {len(before)} entries, has {len(after)}", math.inf
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            for where, what, size in differences(one, other):
                yield f"[{index}]{where}", what, size
    elif before != after and not (before != before and after != after):
        size = math.inf
        if isinstance(before, float) and math.isfinite(before) and math.isfinite(after):
            size = abs(before - after) / max(abs(before), abs(after))
        yield "", f"was {_short(before)}, is {_short(after, before)}", size


def _of_tensors(before, after):
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        kinds = [f"{value.dtype} {tuple(value.shape)}" for value in (before, after)]
        yield "", f"was {kinds[0]}, is {kinds[1]}", math.inf
        return
    a, b = before.double(), after.double()
    unequal = (a != b) & ~(a.isnan() & b.isnan())
    if not unequal.any():
        return
    distance = (a - b)[unequal].abs().max().item()
    largest = a[a.isfinite()].abs().max().item() if a.isfinite().any() else 0.0
    size = distance / max(largest, 1e-30) if math.isfinite(distance) else math.inf
    count = int(unequal.sum())
    yield "", f"{count} of {a.numel()} numbers differ, by at most {distance:.3g}", size


def _short(value, other=None):
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    text = repr(value)
    if isinstance(value, str) and isinstance(other, str):  # from where they part
        pairs = enumerate(zip(value, other, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), min(len(value), len(other)))
        if same > 60:
            text = f"...{value[same - 30 :]!r}"
    return text if len(text) <= 300 else f"{text[:300]}..."


def compare_results(before, after, failures, allowed, *, lists_equal):
    """Prints what differs; returns how many results do that should not."""
    counts = {"equal": 0, "equal to rounding": 0, "differs, allowed": 0, "DIFFERS": 0}
    equal_in = {}

    def tell(verdict, name, what):
        counts[verdict] += 1
        print(f"{verdict}: {name}{what}")

    def may_differ(name):
        return any(fnmatch.fnmatch(name, pattern) for pattern in allowed)

    for case, text in failures.items():
        verdict = "differs, allowed" if may_differ(case) else "DIFFERS"
        tell(verdict, case, f" failed: {text}")
    for name, (within, value) in before.items():
        case = name.rpartition("/")[0]
        if name not in after:
            if not any(name.startswith(f"{failed}/") for failed in failures):
                tell("differs, allowed" if may_differ(name) else "DIFFERS", name, " is gone")
            continue
        found = list(differences(value, after[name][1]))
        if not found:
            counts["equal"] += 1
            equal_in[case] = equal_in.get(case, 0) + 1
            continue
        size = max(each[2] for each in found)
        is_allowed = within == TEXT or may_differ(name)
        if size <= within < TEXT:
            verdict = "equal to rounding"
        else:
            verdict = "differs, allowed" if is_allowed else "DIFFERS"
        shown = "; ".join(f"{where} {what}".strip() for where, what, _ in found[:4])
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        tell(verdict, name, f": {shown}{more}")
    for case, count in equal_in.items() if lists_equal else ():
        print(f"equal: {case} ({count})")
    for name in after.keys() - before.keys():
        print(f"note: {name} was not recorded")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return counts["DIFFERS"]

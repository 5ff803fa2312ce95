"""Conversion: the commands that turn files into files, ``wic hide``, ``down``, ... and back."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wic_layers.cli.batch import convert_all, write_all
from wic_layers.cli.beside import say_left_out
from wic_layers.cli.command import Command, Output, path, print_line, refining_steps
from wic_layers.cli.jobs import Job, make_folder, plan
from wic_layers.cli.presets import check_usable
from wic_layers.cli.reporting import as_json, backward_line, forward_line, times
from wic_layers.codec import Codec, Options, Written
from wic_layers.codec.file_verbs import pack_clip
from wic_layers.codec.refining import BEST
from wic_layers.codec.surviving import preset_through
from wic_layers.errors import WICArgumentError
from wic_layers.pictures import is_clip
from wic_layers.tasks.base import Task
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.packing import Clip, Packing
from wic_layers.tasks.registry import COLORING, HIDING, PACKING, RESCALING, find_packing
from wic_layers.tasks.rescaling import Rescaling

__all__ = ["COMMANDS"]


@dataclass(frozen=True)
class Conversion:
    """One of these commands.

    Attributes:
        name: The word after ``wic``.
        summary: What it does, in the list of commands.
        more: What its own help says beside.
        add_own: Adds the files that it takes, and what no other command has.
        out: What the file is called that it writes.
        tasks: What the network may be for, by the arguments.
        restored: What the image that will come back is called; empty for what the task calls it,
            None of a command that brings it back.
    """

    name: str
    summary: str
    more: str
    add_own: Callable[[argparse.ArgumentParser], None]
    out: str
    tasks: Callable[[argparse.Namespace], Task | Sequence[Task]]
    restored: str | None = None

    @property
    def may_be_jpeg(self) -> bool:
        """Whether there are presets that are trained for writing JPEG."""
        return self.name in ("hide", "down", "gray")

    @property
    def is_forward(self) -> bool:
        """Whether it makes a file from which images come back, in place of bringing them back."""
        return self.restored is not None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds what the command takes to its parser."""
        add = parser.add_argument
        parser.set_defaults(
            others=[], unmarked=False, fit=False, keep_metadata=False, quality=None
        )
        self.add_own(parser)
        add("-o", "--out", metavar=self.out, required=True, action=Output,
            help="PNG to write; of several images, or ending in a slash, the folder"
            + "; or a JPEG, of weights that were trained for it" * self.may_be_jpeg)  # fmt: skip
        default = "default: the task's own" if self.is_forward else "default: what the file says"
        network = parser.add_mutually_exclusive_group()
        network.add_argument("--preset", metavar="NAME", help=f"network to use ({default})")
        network.add_argument(
            "--weights", metavar="FOLDER", type=path, help="weights to use instead of a preset's"
        )
        if self.is_forward:
            add("--refine", metavar="N", type=refining_steps, default=0,
                help=f"improve the result for this image in N steps, or best ({BEST}, after which "
                "little is gained): more comes back, and it looks as before; each takes about "
                "three times as long as the network (default 0)")  # fmt: skip
            add("--check", choices=("all", "some", "none"), default="some",
                help="how much of a result is run backwards to say what comes back: all, some "
                "tiles where it has more than two megapixels (default), or none")  # fmt: skip
            if self.may_be_jpeg:
                add("--quality", metavar="N", type=int,
                    help="write JPEG of this quality, from 1 to 100 (default 90 where the name "
                    "ends in .jpg)")  # fmt: skip
        else:
            add("--size", metavar="WxH", type=_size, action="append",
                help="size of what comes back, if the file says none; once for each "
                "image")  # fmt: skip
        if self.is_forward:
            add(
                "--reduce-depth",
                action="store_true",
                help="take the upper 8 bits of images that have 16",
            )
        existing = parser.add_mutually_exclusive_group()
        existing.add_argument("--force", action="store_true", help="replace outputs that exist")
        existing.add_argument(
            "--skip-existing", action="store_true",
            help="leave out files whose outputs exist, as after a stop",
        )  # fmt: skip
        add("--tile", metavar="N", type=int,
            help="side of the tiles in which large images are run (default: by the "
            "memory)")  # fmt: skip
        add("--max-pixels", metavar="N", type=int,
            help="take files, and images that come back, of up to N pixels (default: 179 million, "
            "which Pillow takes)")  # fmt: skip
        add("--device", default="cpu", help="where to run, such as cuda")
        add("--fast", action="store_true",
            help="run the networks inside couplings in bfloat16: about twice as fast where the "
            "machine has it, and not to be told apart by eye")  # fmt: skip
        add("--json", action="store_true", help="print a line of JSON for each file, "
            "with an error where it failed")  # fmt: skip

    def run(self, args: argparse.Namespace) -> int:
        """Runs the command on each of its files; one that fails does not stop the others."""
        tasks = self.tasks(args)
        several = [tasks] if isinstance(tasks, Task) else tasks
        task = several[0]
        options: Options = {
            "model": _model(args, several), "tile": args.tile, "device": args.device,
            "fast": args.fast, "max_pixels": args.max_pixels,
        }  # fmt: skip
        report = partial(self._report, args, task)
        if isinstance(task, Clip) and len(args.sources) == 1 and is_clip(args.sources[0]):
            clip = args.sources[0]
            if args.into:
                make_folder(args.out)
            files = pack_clip(
                args.task, clip, args.out, refine=args.refine, force=args.force,
                check=args.check, skip_existing=args.skip_existing,
                reduce_depth=args.reduce_depth, **options,
            )  # fmt: skip
            return write_all(clip, files, report, as_json=args.json)
        titles: tuple[str, ...] = ("cover", "secret")
        if self.is_forward and isinstance(task, Packing):
            titles = task.parts[:2]
            args.sources, args.others = args.sources[:1], args.sources[1:]
        jobs = plan(
            args.sources, args.out, others=args.others, titles=titles, into=args.into,
            suffix=".png" if args.quality is None else ".jpg",
        )  # fmt: skip
        for folder in (each for each in (*args.sources, *args.others) if each.is_dir()):
            say_left_out(folder, args.out)
        codec = Codec(tasks, **options)
        return convert_all(
            jobs, lambda job: self._convert(codec, job, args), report,
            as_json=args.json, skip_existing=args.skip_existing,
        )  # fmt: skip

    def _convert(self, codec: Codec, job: Job, args: argparse.Namespace) -> list[Written]:
        if not self.is_forward:
            return codec.decode_file(
                job.inputs[0], job.out, sizes=args.size, force=args.force,
                keep_metadata=args.keep_metadata,
            )  # fmt: skip
        return [
            codec.encode_files(
                job.inputs, job.out, refine=args.refine, fit=args.fit,
                marked=not args.unmarked, force=args.force, check=args.check,
                keep_metadata=args.keep_metadata, reduce_depth=args.reduce_depth,
                quality=args.quality,
            )
        ]  # fmt: skip

    def _report(
        self, args: argparse.Namespace, task: Task, inputs: Sequence[Path], written: Written
    ) -> None:
        """Prints what was written."""
        if args.json:
            print_line(as_json(inputs, written))
        elif not self.is_forward:
            print_line(backward_line(written))
        else:
            lines = [forward_line(written, self.restored or task.titles[1], task.looks_like)]
            if notes := list(_notes(args, written)) if self.name == "hide" else []:
                lines.append(f"note: {'; '.join(notes)}")
            print_line(*lines)


def _notes(args: argparse.Namespace, written: Written) -> Iterator[str]:
    """What whoever hides something should know beside."""
    for index, size in enumerate(written.reduced_from, start=1):
        if size is not None:
            number = f" {index}" if len(written.reduced_from) > 1 else ""
            yield f"the secret{number} was reduced from {times(size)}"
    if written.size != written.source:
        sizes = f"{times(written.source)}, was padded to {times(written.size)}"
        yield f"the cover, {sizes}; do not crop the file"
    if args.unmarked:
        task = Hiding(len(written.returns))
        is_png = written.path.suffix.lower() == ".png"
        preset = args.preset or (task.preset if is_png else preset_through([task]))
        network = f"--weights {args.weights}" if args.weights else f"--preset {preset}"
        sizes = " ".join(f"--size {times(size)}" for size in written.returns)
        yield f"unmarked: wic reveal needs {network} {sizes}"


def _model(args: argparse.Namespace, tasks: Sequence[Task]) -> str | Path | None:
    """What --weights or --preset name; None if neither is there."""
    if args.weights is not None:
        if not args.weights.exists():
            raise WICArgumentError(f"Expected --weights to be there; {args.weights} is not.")
        return Path(args.weights)
    if args.preset is None:
        return None
    check_usable(args.preset, [task.name for task in tasks])
    return str(args.preset)


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([1-9][0-9]{0,6})[xX]([1-9][0-9]{0,6})", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 640x480; got {text!r}")
    return int(sides[1]), int(sides[2])


def _one_size(tasks: Sequence[Task]) -> Callable[[argparse.Namespace], Sequence[Task]]:
    """The tasks of a command that brings a single image back."""

    def checked(args: argparse.Namespace) -> Sequence[Task]:
        if args.size is not None and len(args.size) > 1:
            raise WICArgumentError(f"Expected --size once; got it {len(args.size)} times.")
        return tasks

    return checked


def _rescaling(args: argparse.Namespace) -> Sequence[Task]:
    if args.scale is None:
        return RESCALING
    if args.scale not in ("2", "3", "4"):
        raise WICArgumentError(
            f"wic down makes images 2, 3 or 4 times smaller (-s 2, -s 3, -s 4); -s {args.scale} "
            f"is not available."
        )
    if args.scale == "3" and args.preset is None and args.weights is None:
        raise WICArgumentError(
            "-s 3 is not available without --weights: no weights for it come with the package. "
            "Train some with `wic train irn-x3-small`."
        )
    return [Rescaling(int(args.scale))]


def _packing(args: argparse.Namespace) -> Packing:
    task = find_packing(args.task)
    count = len(args.sources) + len(args.others)
    if not isinstance(task, Clip) and count != len(task.parts):
        raise WICArgumentError(
            f"Expected {len(task.parts)} images for {task.name} ({', '.join(task.parts)}); got "
            f"{count}."
        )
    return task


def _from(command: str) -> str:
    return f"PNG written by wic {command} (or JPEG, of weights for it), or folder of them"


def _sources(
    metavar: str, what: str, *, metadata: str = ""
) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sources", metavar=metavar, type=path, nargs="+", help=what)
        if metadata:
            parser.add_argument("--keep-metadata", action="store_true", help=metadata)

    return add


_CARRY = "carry the EXIF (date, place, camera) and dpi of a photo, which are left out by default"
_WRITE = "write the EXIF and dpi that a file carries, which are left out by default"


def _add_hide(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", metavar="COVER", type=path, nargs=1, help="what the result should look like")
    add("others", metavar="SECRET", type=path, nargs="+", help="what it should hold, up to four")
    add("--unmarked", action="store_true",
        help="write pixels only, no note on what made them; reveal then needs --preset and "
        "--size")  # fmt: skip
    add("--fit", action="store_true", help="reduce secrets larger than the cover")


def _add_down(parser: argparse.ArgumentParser) -> None:
    _sources("PHOTO", _IMAGES, metadata=_CARRY)(parser)
    parser.add_argument("-s", "--scale", help="how many times smaller: 2 (default), 3 or 4")


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="stereo, zoom-x4, layers, clip-5, ...")
    what = "images of one size, in the order above; or a video, or a folder of frames"
    _sources("IMAGE", what)(parser)


_IMAGES = "image file, or folder of them"
_CONVERSIONS = (
    Conversion(
        "hide",
        "Hide one to four images in another one",
        "Writes a PNG that looks like COVER and gives the secrets back; nothing protects them "
        "from others who have this program. An odd side of COVER becomes one pixel longer. With a "
        "folder of covers a secret goes into all of them, or the images of a folder one into "
        "each.",
        _add_hide,
        "STEGO",
        lambda args: Hiding(len(args.others)),
        "the secret",
    ),
    Conversion(
        "reveal",
        "Bring hidden images back",
        "STEGO is all that is needed. Of several secrets, the outputs' names end in -1, -2, ...",
        _sources("STEGO", _from("hide")),
        "SECRET",
        lambda args: HIDING,
    ),
    Conversion(
        "down",
        "Make images half, a third or a quarter as wide and high",
        "Writes a PNG that looks like the bicubic reduction of PHOTO, and from which wic up "
        "brings the photo back at its own size, with its transparency; a grey one comes back with "
        "one channel, though SMALL has three. Colours become those of sRGB, and what else a file "
        "says, such as EXIF, is left out.",
        _add_down,
        "SMALL",
        _rescaling,
        "the photo",
    ),
    Conversion(
        "up",
        "Bring images back that wic down made small",
        "This is not super-resolution: other small images are refused.",
        _sources("SMALL", _from("down"), metadata=_WRITE),
        "PHOTO",
        _one_size(RESCALING),
    ),
    Conversion(
        "gray",
        "Make grey images that keep their colours",
        "Writes a PNG of one channel that looks like the lightness of PHOTO, and from which wic "
        "color brings the colours back, and the transparency. An odd side of PHOTO becomes one "
        "pixel longer; a grey photo is stored as it is. Colours become those of sRGB, and what "
        "else a file says, such as EXIF, is left out.",
        _sources("PHOTO", _IMAGES, metadata=_CARRY),
        "GRAY",
        lambda args: COLORING,
        "the photo",
    ),
    Conversion(
        "color",
        "Bring the colours back that wic gray put away",
        "This does not colour photographs: other grey images are refused.",
        _sources("GRAY", _from("gray"), metadata=_WRITE),
        "PHOTO",
        _one_size(COLORING),
    ),
    Conversion(
        "pack",
        "Make one image of several that gives all of them back",
        "Writes a PNG that looks like one of them: of a stereo pair (stereo LEFT RIGHT) the left "
        "view; of dual views, as two cameras of a phone take them (zoom-x2, zoom-x4, zoom-x8 "
        "NORMAL ZOOMED), the normal one; of layers (layers BACKGROUND FOREGROUND, whose "
        "transparency counts) their composition; of a clip (clip-3, clip-5, clip-7, clip-9 FRAME "
        "...) the middle frame, at half the size (clip-3-x2, clip-5-x2) its reduction. In place "
        "of frames a clip may be a video or a folder of frames; it becomes a folder of PNG files, "
        "as many frames in each as TASK says. Other images of several are taken from folders, one "
        "of each.",
        _add_pack,
        "PACKED",
        _packing,
        "",
    ),
    Conversion(
        "unpack",
        "Bring back the images that wic pack made one of",
        "PACKED is all that is needed. The outputs' names end in -1, -2, ...: of layers the "
        "composition, the background, and the foreground on black.",
        _sources("PACKED", _from("pack")),
        "IMAGE",
        lambda args: PACKING,
    ),
)

COMMANDS = tuple(
    Command(each.name, each.summary, each.add_arguments, each.run, each.more)
    for each in _CONVERSIONS
)

"""Edits that break the command line as it is used; see ``mutants``."""

from __future__ import annotations

from mutations import Mutant

_TESTS = "tests/test_terminal.py"

TERMINAL = (
    Mutant(
        "a shell's loop goes on after Ctrl-C",
        "wic_layers/cli/__init__.py",
        "        os.kill(os.getpid(), signal.SIGINT)\n",
        "        pass\n",
        f"{_TESTS}::test_a_real_terminal",
    ),
    Mutant(
        "closed streams stay closed",
        "wic_layers/cli/__init__.py",
        "    _open_streams()\n    from",
        "    from",
        f"{_TESTS}::test_closed_streams",
    ),
    Mutant(
        "names are printed raw",
        "wic_layers/cli/command.py",
        "        tqdm.tqdm.write(printable(line), file=stream)",
        "        tqdm.tqdm.write(line, file=stream)",
        f"{_TESTS}::test_nothing_of_a_name_steers_the_terminal",
    ),
    Mutant(
        "a card ends its head",
        "wic_layers/models/card.py",
        "licence = json.dumps(licence)",
        "pass",
        f"{_TESTS}::test_a_card_is_what_it_says",
    ),
    Mutant(
        "every file starts the bar anew",
        "wic_layers/cli/bar.py",
        "        self._done += work\n",
        "        self._bar.reset()\n",
        f"{_TESTS}::test_one_bar_for_all_files",
    ),
    Mutant(
        "convolutions are not told",
        "wic_layers/codec/work.py",
        "        if func is torch.conv2d and",
        "        if False and",
        f"{_TESTS}::test_the_work_is_told_within_one_tile",
    ),
    Mutant(
        "the first of several images is written first",
        "wic_layers/codec/returning.py",
        "in reversed(list(zip(images, grey, targets, strict=True))):",
        "in list(zip(images, grey, targets, strict=True)):",
        f"{_TESTS} -k there_when_the_first_is",
    ),
    Mutant(
        "a pattern stays a pattern",
        "wic_layers/cli/words.py",
        "        elif is_pattern(word):",
        "        elif False:",
        f"{_TESTS} -k no_shell_expanded",
    ),
)

"""What every binary shares: flags in, one function call out, one clear line on bad input.

A binary keeps its flags in a set of its own, so that any of them can be imported beside any other:

    FLAGS = cli.flag_set()
    _WORKDIR = flags.DEFINE_string("workdir", None, "...", required=True, flag_values=FLAGS)

    def main(): ...

    def console(): cli.run(main, FLAGS, __doc__)
"""

import difflib
import os
import sys

from absl import app, flags, logging

from kpose.core import startup
from kpose.core.errors import InputError


def flag_set():
    """An empty set of absl flags for one binary."""
    return flags.FlagValues()


def run(main, flag_values, doc, prepare=None, tensorflow=True, choices=(), arguments=None):
    """Runs `main()` as a command-line program.

    Args:
        main: the function that does the work. `InputError` from it becomes one line on stderr and exit status 1.
        flag_values: the binary's flags, from `flag_set`.
        doc: what `--help` prints above the flags.
        prepare: changes the list of arguments before they are parsed.
        tensorflow: whether `main` uses TensorFlow.
        choices: what the first argument must be one of; `main` is then called with it.
        arguments: the flag, of several strings, that arguments without a flag's name are values of too; one is needed.
    """
    program = os.path.basename(sys.argv[0])
    if program.endswith(".py"):
        program = f"python -m {sys.modules['__main__'].__spec__.name.removesuffix('.__main__')}"

    def fail(message):
        print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
        sys.exit(1)

    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(_usage(flag_values, doc))
        sys.exit(0)

    def parse(argv):
        try:
            _check_names(argv[1:], flag_values)
            _check_required(argv[1:], flag_values)
            if prepare:
                # Where ml_collections looks for --config.FIELD.
                argv = sys.argv = prepare(argv)
            return flags.FLAGS(flag_values(argv, known_only=True))
        except (flags.Error, InputError) as error:
            fail(f"{error} (--help lists the flags)")

    def guarded(argv):
        words = argv[1:]
        if arguments:
            flag = flag_values[arguments]
            flag.value = [*(flag.value or ()), *words]
            words = []
            if not flag.value:
                fail(f"--{arguments} is missing: {flag.help} (--help lists the flags)")
        if choices and (not words or words[0] not in choices):
            fail(f"say first which: {', '.join(choices)} (--help explains)")
        if len(words) > bool(choices):
            fail(f"unexpected argument {words[-1]!r}: the rest is given by flags (--help lists them)")
        logging.set_verbosity(flags.FLAGS.verbosity if flags.FLAGS["verbosity"].present else logging.INFO)
        handler = logging.get_absl_handler()
        handler.setFormatter(None)
        # TensorFlow logs through absl too: how long it planned a checkpoint, and the like.
        handler.addFilter(lambda record: record.levelno > logging.logging.INFO or "tensorflow" not in record.pathname)
        if tensorflow:
            startup.keep_freed_memory()
            startup.import_tensorflow()
        try:
            main(*words)
        except InputError as error:
            fail(error)

    try:
        app.run(guarded, flags_parser=parse)
    except KeyboardInterrupt:
        fail("interrupted")
    except BrokenPipeError:
        # Whoever read has enough, as `| head` has. What is still buffered would break the pipe again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _check_names(arguments, flag_values):
    """Unknown flags first: absl would rather complain of the missing ones that they were meant to be."""
    known = {*flag_values, *flags.FLAGS}
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("--") or name.startswith("config.") or name in known | {"", "flagfile", "undefok"}:
            continue
        if name.startswith("no") and name[2:] in known:
            continue
        near = difflib.get_close_matches(name, flag_values, n=1)
        raise InputError(f"there is no flag --{name}" + (f": did you mean --{near[0]}?" if near else ""))


def _check_required(arguments, flag_values):
    """Missing flags by name and meaning: absl would say that they must have a value other than None."""
    given = {argument.lstrip("-").partition("=")[0] for argument in arguments}
    for name in flag_values:
        if flag_values[name].default is None and name not in given and flag_values[name].validators:
            raise InputError(f"--{name} is missing: {flag_values[name].help}")


def _usage(flag_values, doc):
    lines = [(doc or "").strip(), "", "Flags:"]
    for name in sorted(flag_values):
        flag = flag_values[name]
        default = "" if flag.default in (None, "") else f" (default: {flag.default})"
        lines += [f"  --{name}", f"      {flag.help}{default}"]
    return "\n".join(lines)


def parse_size(values, name):
    """The list flag `name`, one side or height and width in pixels, as (height, width)."""
    try:
        sides = tuple(int(value) for value in values)
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise InputError(f"--{name}={','.join(values)}: give one side, or HEIGHT,WIDTH, in pixels")
    return sides * 2 if len(sides) == 1 else sides

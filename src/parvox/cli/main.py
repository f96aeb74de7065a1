"""The `parvox` command: finds the subcommand, runs it, and turns our errors into one line and exit code 2."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback

from parvox import __version__
from parvox.errors import MissingExtraError, ParvoxError, nearest

TRACEBACK = "PARVOX_TRACEBACK"
"""Environment variable under which internal errors say where they arose."""

# Name, what it does, and the extra it needs. Each is a module of this folder with a `main(argv)`.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("the whole way on a small corpus: teach, distil, measure, ship, verify", "train"),
    "prepare": ("recordings on disk -> manifests, speaker-disjoint splits and trial lists", "train"),
    "shard": ("a prepared corpus -> tar files in Lhotse's Shar format, to evaluate from a store", "train"),
    "train": ("train a speaker model from a recipe", "train"),
    "distill": ("train a student that learns from a teacher", "train"),
    "fit-frames": ("a classifier of phones or words in frames, for models with phonetic positions", "train"),
    "fit-head": ("a speaker classifier for a teacher that has none, so that label-level methods can use it", "train"),
    "evaluate": ("EER, minDCF, intervals by speaker and an HTML report, for one or more models", "train"),
    "export": ("a trained model -> one ONNX file, fp32 or int8, checked against PyTorch", "train"),
    "calibrate": ("thresholds of a model file chosen anew, on recordings of your own", "train"),
    "embed": ("recordings -> speaker embeddings, with a model file", ""),
    "verify": ("is this the same voice? score, threshold and decision, with a model file", ""),
    "models": ("every model, pooling and loss a recipe can name: size, operations, source, settings", "train"),
    "info": ("what a model file, run folder, recipe or prepared corpus holds", ""),
}


def usage() -> str:
    """The help text of the bare command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (what, _) in COMMANDS.items()]
    return (
        "usage: parvox COMMAND [ARGUMENTS]\n\n"
        "Turn a big speaker-verification model into a small one that is nearly as good, and rely on it.\n\n"
        "commands:\n" + "\n".join(lines) + "\n\nparvox COMMAND --help tells more; parvox --version prints the version."
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments after the program's name; taken from the process by default.

    Returns:
        The exit code: 0, 2 for a problem with what was given, 3 for a fault of Parvox itself, or what the command
        says.
    """
    # Threads that spin while they wait make a shared machine several times slower; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    if argv is None:  # the process is ours
        signal.signal(signal.SIGTERM, _terminated)
        argv = sys.argv[1:]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"parvox {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    try:
        if name not in COMMANDS:
            raise ParvoxError(f"unknown command {name!r}: {nearest(name, COMMANDS)}")
        return _run(name, rest)
    except ParvoxError as error:
        print(f"parvox: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has left, as in `parvox … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MemoryError, OSError, RuntimeError) as error:
        words = _machine_trouble(error)
        if words is None:
            return _fault(error)
        print(f"parvox: error: {words}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("parvox: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # Python's own exit code for it, 1, is verify's "reject"
        return _fault(error)


def _terminated(number: int, frame: object) -> None:
    """Leave as an interrupt does, so that what was begun is put back and nothing half-written stays."""
    print("parvox: terminated", file=sys.stderr)
    raise SystemExit(128 + number)


def _fault(error: Exception) -> int:
    """Say that Parvox is at fault; where the error arose, too, if `TRACEBACK` is set."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    words = f"{type(error).__name__}: {error}".split()
    print(
        f"parvox: internal error: {' '.join(words)[:500]}; this is a fault of Parvox: please report it, with what "
        f"{TRACEBACK}=1 prints",
        file=sys.stderr,
    )
    return 3


def _machine_trouble(error: Exception) -> str | None:
    """A line for what the operating system refuses and no room foresaw; None for what is no such thing."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return f"out of memory ({text[:200]}); choose a smaller model, batch or recording, or a larger machine"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename!s}: " if error.filename else ""
        return f"{where}{error.strerror}; check that the path is right, may be used, and has room"
    return None


def _run(name: str, argv: list[str]) -> int:
    extra = COMMANDS[name][1]
    try:
        module = importlib.import_module(f"parvox.cli.{name.replace('-', '_')}")
        code = module.main(argv)
    except ModuleNotFoundError as error:
        if extra and error.name and not error.name.startswith("parvox"):
            raise MissingExtraError(f"parvox {name} ({error.name} is not installed)", extra) from error
        raise
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())

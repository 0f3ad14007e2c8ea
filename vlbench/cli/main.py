"""`vlbench`: the verbs, and the only place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

import typer

from vlbench import __version__
from vlbench.cli import (
    compare,
    data,
    doctor,
    export,
    gate,
    leaderboard,
    new,
    pretrain,
    profile,
    report,
    run,
    score,
    show,
    submit,
    verify,
)
from vlbench.cli import list as list_verb
from vlbench.cli.options import GroupedCommand
from vlbench.core.errors import ExitCode, VlbenchError, shortage
from vlbench.core.user_code import print_frames, user_faults
from vlbench.core.validate import initials
from vlbench.engine.runtime.ending import end_process
from vlbench.engine.runtime.ranks import give_way

USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""ClickException, from the copy of click that this typer contains or imports."""

app = typer.Typer(
    help="Finetune, evaluate and compare vision-language models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run", cls=GroupedCommand)(run.run)
app.command("pretrain", cls=GroupedCommand)(pretrain.pretrain)
app.command("score")(score.score)
app.command("list")(list_verb.list_)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("gate")(gate.gate)
app.command("verify")(verify.verify)
app.command("profile", cls=GroupedCommand)(profile.profile)
app.command("export")(export.export)
app.command("submit")(submit.submit)
app.command("new")(new.new)
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from vlbench import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code; a user error is one sentence on stderr."""
    if cache := os.environ.get("VLBENCH_CACHE"):  # code of a plug-in may call os.chdir
        os.environ["VLBENCH_CACHE"] = cache if cache.startswith("~") else str(Path(cache).absolute())
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own ends the process where memory runs out
    arguments = [_hyphenated(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    if arguments[:1] == ["leaderboard"]:
        arguments = leaderboard.spelled_out(arguments)
    try:
        with user_faults():
            code = _run(arguments)
            sys.stdout.flush()  # here, where an error becomes a message: the disk behind it may be full
            return code
    except VlbenchError as error:
        return _fail(shortage(error) or error, error, arguments)
    except KeyboardInterrupt:
        print("vlbench: interrupted", file=sys.stderr)
        _say_how_to_resume(arguments)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        _drop_output()  # its reader has exited (`vlbench list tasks | head -1`)
        return int(ExitCode.OK)
    except Exception as error:
        if lacking := shortage(error):
            if isinstance(error, OSError) and error.filename is None:  # perhaps stdout, which is flushed again at exit
                _drop_output()
            return _fail(lacking, error, arguments)
        who = give_way(error)
        traceback.print_exc()
        print(
            f"vlbench: {who}internal error; please report the traceback above with the command, vlbench {__version__}, "
            f"Python {platform.python_version()} and {platform.system()}",
            file=sys.stderr,
        )
        return int(ExitCode.INTERNAL_ERROR)


_command = cache(typer.main.get_command)
"""The command of an app, made once: a process may run many command lines, as tests do."""


def _run(arguments: list[str]) -> int:
    try:
        result = _command(app)(arguments, prog_name="vlbench", standalone_mode=False)
    except USAGE_ERROR as error:
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)  # a group called without a verb lists its verbs
            return int(ExitCode.OK)
        give_way(error)
        text = " ".join(message.split()).replace(": Value error, ", ": ", 1)  # a prefix of pydantic's
        text += _abbreviation(error)
        print(f"vlbench: {text}", file=sys.stderr)
        return int(ExitCode.USAGE)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == ExitCode.INTERRUPTED:  # how newer versions of click return a Ctrl-C
        raise KeyboardInterrupt
    return result if isinstance(result, int) else int(ExitCode.OK)


def _abbreviation(error: typer.BadParameter) -> str:
    """The flag that an unknown one abbreviates to (`--lr` for `--learning-rate`); empty if there is none."""
    short, context = f"--{initials(getattr(error, 'option_name', '').strip('-'))}", error.ctx
    known = [name for parameter in context.command.params for name in parameter.opts] if context else []
    return f": did you mean {short}?" if short in known else ""


def _fail(reported: VlbenchError, error: Exception, arguments: list[str]) -> int:
    """Print the sentence of the user error that is reported for an error; returns its exit code."""
    who = give_way(error)
    print_frames(reported)
    print(f"vlbench: {who}{reported.message}", file=sys.stderr)
    if reported.exit_code == ExitCode.INTERRUPTED:
        _say_how_to_resume(arguments)
    return int(reported.exit_code)


def _drop_output() -> None:
    """Print nothing more, not even at exit: stdout cannot be written."""
    with suppress(OSError, ValueError):  # ValueError: it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hyphenated(argument: str) -> str:
    """`--data_root=X` as `--data-root=X`: flags may have `_` for `-`; values are kept."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _say_how_to_resume(arguments: list[str]) -> None:
    if arguments[:1] in (["run"], ["pretrain"]):
        print(f"resume with: {shlex.join(['vlbench', *arguments])}", file=sys.stderr)


def entry() -> None:
    """The console script."""
    end_process(main())

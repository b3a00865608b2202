"""The command line as a whole: help, errors, exit codes."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mmunify import __version__, cli
from mmunify.errors import MissingExtraError, RecipeError, TrainingError, UserError

COMMANDS = ["demo", "train", "check", "list", "show", "cp", "run", "eval"]


def fail_with(monkeypatch, error):
    def app(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli, "app", app)


def exit_code(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    return stop.value.code


def test_help_names_every_command(capsys):
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert f"Example: mmunify {command}" in done.output


def test_the_console_script_and_the_module_are_the_same():
    done = subprocess.run(
        [sys.executable, "-m", "mmunify.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"mmunify {__version__}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a wrong thing"), 2),
        (RecipeError([]), 2),
        (MissingExtraError("needs PyAV"), 2),
        (FileNotFoundError(2, "No such file", "x.png"), 2),
        (PermissionError(13, "denied", "/root"), 2),
        (TrainingError("not finite"), 1),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    fail_with(monkeypatch, error)
    assert exit_code("train", "x") == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown
    assert str(error) in shown


def test_an_unexpected_error_says_how_to_see_more(monkeypatch, capsys):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    exit_code("list")
    expected = "error: unexpected ZeroDivisionError: division by zero (--debug shows the traceback)"
    assert capsys.readouterr().err.strip() == expected


@pytest.mark.parametrize("arguments", [("--debug", "show", "x"), ("show", "x", "--debug")])
def test_debug_at_any_place_shows_the_traceback(arguments, capsys):
    assert exit_code(*arguments) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "RegistryError" in shown or "UserError" in shown


def test_brackets_in_messages_are_no_markup(monkeypatch, capsys):
    fail_with(monkeypatch, MissingExtraError("pip install 'mmunify[video]'"))
    exit_code("list")
    assert "mmunify[video]" in capsys.readouterr().err


def test_unknown_commands_and_options_end_with_2(capsys):
    assert exit_code("trian") == 2
    assert exit_code("list", "--nothing") == 2


def test_a_missing_recipe_is_one_paragraph(capsys):
    assert exit_code("check", "no/such/recipe.yaml") == 2
    assert capsys.readouterr().err.startswith("error: no file 'no/such/recipe.yaml', and no shipped recipe named")

"""`fastsse config init|schema` and `fastsse completion`, as users run them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fastsse.cli import COMMANDS, main
from fastsse.config.filetext import commented_file, schema
from tests.cli.commandline import command, environment


def run(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        command(arguments), env=environment(**variables), capture_output=True, text=True, check=True
    )
    return done.stdout


def test_init_writes_a_file_that_check_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "init"]) == 0
    assert (tmp_path / "fastsse.toml").read_text() == commented_file()
    assert main(["config", "check", "--config", "fastsse.toml"]) == 0
    assert "fastsse serve --config fastsse.toml" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["check", "show"])
def test_a_file_may_be_an_argument(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("heartbeat = '7s'\n")
    assert main(["config", name, str(file)]) == 0
    by_argument = capsys.readouterr()
    assert main(["config", name, "--config", str(file)]) == 0
    assert capsys.readouterr() == by_argument
    file.write_text("heartbeet = '7s'\n")
    assert main(["config", name, str(file)]) == 2
    assert "heartbeet" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["check", "show"])
def test_a_file_is_given_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("")
    assert main(["config", name, str(file), "--config", str(file)]) == 2
    assert "either as an argument or with --config" in capsys.readouterr().err


def test_init_replaces_a_file_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("port = 1\n")
    assert main(["config", "init", str(file)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert file.read_text() == "port = 1\n"
    assert main(["config", "init", str(file), "--force"]) == 0
    assert file.read_text() == commented_file()


def test_init_says_why_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", str(tmp_path / "none" / "a.toml")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_init_and_schema_write_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "-"]) == 0
    assert capsys.readouterr().out == commented_file()
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_completion_gives_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        count = str(len(words.split(" ")) - 1)
        variables = {"_FASTSSE_COMPLETE": "bash_complete", "COMP_CWORD": count}
        lines = run(COMP_WORDS=words, **variables).splitlines()
        return [line.partition(",")[2] for line in lines]

    assert completed("fastsse ") == list(COMMANDS)
    assert completed("fastsse config sc") == ["schema"]
    assert "--history-events" in completed("fastsse serve --history")
    assert completed("fastsse serve --lag-policy dis") == ["disconnect"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_FASTSSE_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program is not None:
        (tmp_path / "script").write_text(script)
        subprocess.run([program, "-n", tmp_path / "script"], check=True)


def test_completion_of_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err

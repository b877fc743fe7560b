"""Running a user's Python file for the names it defines."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from matterstack.config.text_file import read_text
from matterstack.errors import ConfigError, MatterStackError


def read_python(path: Path) -> dict[str, Any]:
    """Return the names the file defines when it is run, not as ``__main__``.

    Its directory comes first on the import path, as with ``python FILE``.

    Raises:
        ConfigError: It cannot be read, is no Python, or failed; the message has file and line.
    """
    source = read_text(path)
    module = ModuleType("__matterstack__")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and the like look for it
    sys.path.insert(0, str(path.resolve().parent))
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102  # to run it is what the user asked for
    except SyntaxError as error:
        raise ConfigError(
            f"{error.filename}:{error.lineno}: not valid Python: {error.msg}. Nothing was started."
        ) from None
    except MatterStackError as error:
        raise ConfigError(f"{path}{_line(path, error)}: {error}") from None
    except SystemExit as error:
        raise ConfigError(f"{path}: called exit({error.code!r}) while it was read. Nothing was started.") from None
    except Exception as error:  # noqa: BLE001  # whatever a user's file may raise
        raise ConfigError(
            f"{path}{_line(path, error)}: {type(error).__name__}: {error}. Nothing was started; `python {path}` shows "
            "the whole traceback."
        ) from None
    return vars(module)


def _line(path: Path, error: BaseException) -> str:
    import traceback  # only where there is an error

    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""

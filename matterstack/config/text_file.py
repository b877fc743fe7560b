"""Text from files, with errors that people understand."""

from __future__ import annotations

from pathlib import Path

from matterstack.errors import ConfigError


def read_text(path: Path) -> str:
    """Return the file's text.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. Nothing was started; check the path.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory, not a file. Nothing was started.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8. Nothing was started.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Nothing was started.") from None

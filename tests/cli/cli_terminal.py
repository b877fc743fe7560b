"""The command line on a terminal of its own."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

from cli_project import COMMAND, WAIT_S


class Terminal:
    """A command on a pseudo-terminal of its own, which is its controlling terminal: ``\\x03`` is a real Ctrl-C."""

    def __init__(self, project, *arguments, size=None):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(project.path)
            env = project.env | {"COLUMNS": "200"}
            if size is not None:  # (lines, columns), told by the terminal and not by the environment
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                del env["COLUMNS"]
            os.execve(COMMAND[0], [*COMMAND, *arguments], env)
        self.pid, self.screen, self.code = pid, "", None

    def read(self):
        """Add what came to the screen; return False at the end."""
        if not select.select([self.fd], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)

    def until(self, words):
        deadline = time.monotonic() + WAIT_S
        while words not in self.screen:
            assert time.monotonic() < deadline, f"no {words!r} on the screen:\n{self.screen}"
            self.read()

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """Return the exit code."""
        deadline = time.monotonic() + WAIT_S
        while self.read():
            assert time.monotonic() < deadline, f"it goes on:\n{self.screen}"
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        assert "Traceback" not in self.screen, self.screen
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

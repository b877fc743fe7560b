"""What spawn.c does, for machines without a C compiler: spawn.py N P COMMAND."""

import os
import sys


def main(left: int, slots: int, command: str) -> None:
    running = 0
    while left or running:
        if left and running < slots:
            os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
            left, running = left - 1, running + 1
        else:
            _, status = os.wait()
            if status:
                sys.exit(1)
            running -= 1


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

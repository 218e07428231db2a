"""How a fork ends that does what a new process of Python would do."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def end_with(call: Callable, *arguments: object) -> NoReturn:
    """Call it, and end this process as Python does after it: by `sys.exit`, an error or its end."""
    status = 1
    try:
        call(*arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

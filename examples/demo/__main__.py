"""`python -m examples.demo`: see the package's own docstring."""

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from examples.demo.run import Run
from examples.demo.settings import Settings


async def main(settings: Settings) -> int:
    """Remove what the run left behind, unless there is something to look into."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):  # by name: who starts it in the background ignores Ctrl+C
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="segundo-demo-"))
    run, code = Run(settings, folder), 1
    try:
        code = await run.play()
    except asyncio.CancelledError:  # Ctrl+C, or SIGTERM
        code = 130
    finally:
        if code == 1:
            run.say(f"the ledger, files, emails and the app's output are kept in {folder}")
        else:
            shutil.rmtree(folder)
    return code


sys.exit(asyncio.run(main(Settings.from_environment())))
